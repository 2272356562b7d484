"""The corpus of a study: tokens on disk, mapped into memory, never held there.

A source is one of

- ``stdlib``: the sources of the running Python's own standard library, eight megabytes that everyone has;
- ``site-packages``: the Python sources of the packages beside the running Python, of the same kind and many times more;
- ``debian-english``: the English documentation in packages of Debian; see ``graphclone.study.debian``;
- a folder of text files, or one text file, of any size;
- tokens in a file: ``.npy``, one-dimensional whole numbers, or ``.bin``, raw little-endian uint16 without a header.

The tokens of text are its bytes, 0 to 255, with one byte 0 between two documents. They are copied to the study's
folder once, so that a study goes on with the same text whatever becomes of the source. Tokens in a file are mapped
where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from graphclone.errors import GraphcloneError, first_line
from graphclone.runtime.files import written
from graphclone.study import debian

Tokens = NDArray[np.integer[Any]]
_Texts = Callable[[], Iterator[tuple[str, Path]]]

STDLIB, SITE_PACKAGES, DEBIAN_ENGLISH = "stdlib", "site-packages", "debian-english"
_NAMED = (STDLIB, SITE_PACKAGES, DEBIAN_ENGLISH)
TRAIN, VALIDATION, CARD = "train.npy", "validation.npy", "corpus.json"

_TOKEN_FILES = {".npy", ".bin"}
_DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")
_MAX_VOCABULARY = 2**31 - 1

_HELD_OUT = 20
"""One in so many documents, or tokens of a single document, is for validation."""

_SEPARATE = {"distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "tkinter", "turtle", "turtledemo"}
"""Modules that distributions and platforms leave out of the library or ship apart from it."""

_GENERATED = {"encodings", "pydoc_data"}
"""Modules that are mostly tables and pages made by tools; one such page would be most of the validation tokens."""

_NO_SOURCES = {"test", "tests", "idle_test", "__pycache__", "macholib"}
"""Folders in any module that hold no sources, or some that not everyone has."""

_HEAD = 8192
"""Bytes; a file with a byte 0 among so many first ones is no text."""

_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens to train on and tokens to validate on.

    Attributes:
        vocabulary: one more than the greatest token.
        digest: sha256 in hex. Of text: over the relative paths and contents of its files. Of a token file: of the
            file, as sha256sum prints it.
        description: what it is, for people.
        text: whether tokens are bytes of text.
        train: one-dimensional, mapped into memory, read-only.
        validation: one-dimensional, mapped into memory, read-only.
    """

    vocabulary: int
    digest: str
    description: str
    text: bool
    train: Tokens
    validation: Tokens

    def batch(self, step: int, batch: int, context: int, seed: int) -> torch.Tensor:
        """Random windows of the training tokens, (batch, context + 1), int64.

        They depend on nothing but the arguments: training resumes at any step, and processes that share a batch
        each take their rows of it.

        Raises:
            GraphcloneError: the training tokens are fewer than a window.
        """
        _require_window(self.train, context, "training")
        key = np.array([seed % 2**64, step], dtype=np.uint64)
        draw = np.random.Generator(np.random.Philox(key=key))
        return _gather(self.train, draw.integers(len(self.train) - context, size=batch), context)

    def windows(self, count: int, context: int) -> torch.Tensor:
        """At most so many windows of the validation tokens, (windows, context + 1), int64.

        They do not overlap and lie evenly over the tokens; there are fewer where the tokens hold no more.

        Raises:
            GraphcloneError: the validation tokens are fewer than a window.
        """
        _require_window(self.validation, context, "validation")
        count = min(count, len(self.validation) // (context + 1))
        return _gather(self.validation, np.arange(count) * len(self.validation) // count, context)


def _require_window(tokens: Tokens, context: int, what: str) -> None:
    if len(tokens) <= context:
        raise GraphcloneError(
            f"the corpus has {len(tokens)} {what} tokens, and a window takes {context + 1}: "
            "give a longer corpus or a shorter context"
        )


def _gather(tokens: Tokens, starts: NDArray[np.int64], context: int) -> torch.Tensor:
    rows = np.empty((len(starts), context + 1), np.int64)
    for row, start in zip(rows, starts.tolist(), strict=True):
        row[:] = tokens[start : start + context + 1]
    return torch.from_numpy(rows)


@dataclass(frozen=True)
class _Card:
    """What ``corpus.json`` says.

    Attributes:
        source: as it was given.
        description: of the corpus, for people.
        text: whether tokens are bytes of text.
        files: that the tokens come from.
        bytes: of these files.
        digest: see `Corpus`.
        vocabulary: one more than the greatest token.
        train_tokens: how many there are.
        validation_tokens: how many there are.
        modified: when a token file was last written, in nanoseconds; None for text.
    """

    source: str
    description: str
    text: bool
    files: int
    bytes: int
    digest: str
    vocabulary: int
    train_tokens: int
    validation_tokens: int
    modified: int | None = None

    def corpus(self, train: Tokens, validation: Tokens) -> Corpus:
        return Corpus(self.vocabulary, self.digest, self.description, self.text, train, validation)


def prepare(source: str, folder: Path) -> Corpus:
    """The corpus of a study, read from the source once and from the folder ever after.

    About one text file in twenty is for validation, by a hash of its relative path, and at least one. Of a single
    text file, and of a token file, it is the last twentieth. Left out of a folder are hidden files, symlinks,
    empty files, and files with a byte 0 in their first 8 KiB.

    Args:
        source: a name, a folder of text, a text file, or a token file; see above.
        folder: for ``train.npy``, ``validation.npy`` and ``corpus.json``; of a token file, only the last.

    Raises:
        GraphcloneError: the source cannot be read or holds too little, the folder cannot be written to, or it
            holds the corpus of another source.
    """
    card = _read_card(folder)
    if card and card.source != source:
        raise GraphcloneError(
            f"{folder} holds the corpus of {card.source!r}, not of {source!r}: give another folder, or delete this one"
        )
    path = Path(source).expanduser()
    if source not in _NAMED and path.suffix in _TOKEN_FILES and not path.is_dir():
        return _token_file(source, path, folder, card)
    if not card:
        card = _copy_text(source, path, folder)
    halves = _open(folder / TRAIN), _open(folder / VALIDATION)
    if tuple(map(len, halves)) != (card.train_tokens, card.validation_tokens):
        raise _damaged(folder)
    return card.corpus(*halves)


def _read_card(folder: Path) -> _Card | None:
    try:
        return _Card(**json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _unreadable(error)
    except (ValueError, TypeError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> GraphcloneError:
    return GraphcloneError(f"the corpus in {folder} is damaged: delete that folder, and it is made anew")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphcloneError(f"cannot write to {folder}: {error.strerror or error}") from error


def _write_card(path: Path, card: _Card) -> None:
    path.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def _open(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The tokens of a file, mapped into memory.

    Raises:
        GraphcloneError: it cannot be read, or does not hold one-dimensional whole numbers of a known type.
    """
    try:
        if path.suffix == ".bin":
            tokens = np.memmap(path, dtype="<u2", mode="r")
        else:
            tokens = np.lib.format.open_memmap(path, mode="r")  # refuses what would have to be unpickled
    except (OSError, ValueError, TypeError, OverflowError, SyntaxError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise GraphcloneError(f"cannot read tokens from {path}: {reason}") from error
    if tokens.ndim != 1 or tokens.dtype not in _DTYPES:
        raise GraphcloneError(
            f"{path} holds {tokens.dtype} of shape {tokens.shape}: "
            f"tokens are one-dimensional, and one of {', '.join(_DTYPES)}"
        )
    return tokens


# Tokens in a file.


def _token_file(source: str, path: Path, folder: Path, record: _Card | None) -> Corpus:
    tokens = _open(path)
    cut = len(tokens) - max(1, len(tokens) // _HELD_OUT)
    if cut < 1:
        raise GraphcloneError(f"{path} holds {len(tokens)} tokens: that is too few to train on and to validate on")
    file = path.stat()
    if not record or (record.bytes, record.modified) != (file.st_size, file.st_mtime_ns):
        digest, vocabulary = _scan(path, tokens)
        if record and record.digest != digest:
            raise GraphcloneError(
                f"{path} is no longer what {folder} was made from: give another folder, or delete this one"
            )
        description = f"{path.name}, {len(tokens):,} tokens, vocabulary {vocabulary:,}"
        record = _Card(source, description, False, 1, file.st_size, digest, vocabulary, cut, len(tokens) - cut)
        record = replace(record, modified=file.st_mtime_ns)
        _make_folder(folder)
        with written(folder / CARD) as card:
            _write_card(card, record)
    return record.corpus(tokens[:cut], tokens[cut:])


def _scan(path: Path, tokens: np.memmap[Any, np.dtype[Any]]) -> tuple[str, int]:
    """The digest of a token file and its vocabulary, in one pass."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(tokens.offset))
    greatest = 0
    for first in range(0, len(tokens), _CHUNK):
        chunk = tokens[first : first + _CHUNK]
        digest.update(chunk.data)
        low, greatest = int(chunk.min()), max(greatest, int(chunk.max()))
        if low < 0 or greatest >= _MAX_VOCABULARY:
            wrong = low if low < 0 else greatest
            raise GraphcloneError(f"{path} holds the token {wrong}, but tokens are 0 to {_MAX_VOCABULARY - 1}")
    return digest.hexdigest(), greatest + 1


# Text.


def _copy_text(source: str, path: Path, folder: Path) -> _Card:
    if source == DEBIAN_ENGLISH:
        _make_folder(folder)
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            debian.unpack(Path(unpacked))
            description = f"English of Debian's {', '.join(debian.PACKAGES)}"
            return _written(source, partial(_visible, Path(unpacked)), description, folder)
    texts, description = _texts(source, path, folder)
    return _written(source, texts, description, folder)


def _written(source: str, texts: _Texts, description: str, folder: Path) -> _Card:
    """Write tokens and card of a corpus."""
    few = list(islice(texts(), 2))
    if not few:
        raise GraphcloneError(
            f"there is no text in {source!r}: hidden files, symlinks, empty files, and files with a byte 0 do not count"
        )
    bound = _bound(texts) if len(few) > 1 else None
    _make_folder(folder)
    with written(folder / CARD) as card, (card.parent / TRAIN).open("wb") as train:
        with (card.parent / VALIDATION).open("wb") as validation:
            record = _write(texts, bound, _Growing(train), _Growing(validation))
        if not (record.train_tokens and record.validation_tokens):
            raise GraphcloneError(f"{source!r} holds {record.bytes} bytes: that is too little to train on")
        size = f"{record.files:,} files, {record.bytes / 1e6:,.1f} MB"
        record = replace(record, source=source, description=f"{description}, {size}")
        _write_card(card, record)
    return record


def _texts(source: str, path: Path, folder: Path) -> tuple[_Texts, str]:
    """What lists relative paths and places of the text files, in an order that depends on nothing else; its name."""
    if source == STDLIB:
        python = ".".join(map(str, sys.version_info[:3]))
        return partial(_stdlib, Path(sysconfig.get_path("stdlib"))), f"the standard library of Python {python}"
    if source == SITE_PACKAGES:
        return partial(_site_packages, Path(sysconfig.get_path("purelib"))), "the packages beside Python"
    if path.is_file():
        return partial(_only, path), path.name
    if not path.is_dir():
        raise GraphcloneError(
            f"there is no {source!r}: a corpus is {', '.join(_NAMED)}, a folder of text, a text file, "
            "or tokens as .npy or .bin"
        )
    if folder.resolve().is_relative_to(path.resolve()):
        raise GraphcloneError(f"{folder} lies in {source!r}, which is to be read: give a folder outside it")
    return partial(_visible, path), path.resolve().name


def _only(path: Path) -> Iterator[tuple[str, Path]]:
    if _is_text(path):
        yield path.name, path


def _visible(root: Path) -> Iterator[tuple[str, Path]]:
    return _walk(root, lambda name: not name.rpartition("/")[2].startswith("."))


def _stdlib(root: Path) -> Iterator[tuple[str, Path]]:
    # The names Python knows leave out site-packages, what distributions add, and what a build generates.
    modules = sys.stdlib_module_names - _SEPARATE - _GENERATED

    def belongs(name: str) -> bool:
        top, *rest = name.split("/")
        return top.removesuffix(".py") in modules and not _NO_SOURCES.intersection(rest)

    return ((name, path) for name, path in _walk(root, belongs) if name.endswith(".py"))


def _site_packages(root: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in _visible(root) if name.endswith(".py"))


def _walk(root: Path, belongs: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """The text files of a folder by relative path, a folder's own before those of the folders in it.

    Symlinks are left out: what they lead to is elsewhere, or comes twice.

    Raises:
        GraphcloneError: a file or folder cannot be read.
    """
    for parent, folders, files in os.walk(root, onerror=_unreadable):
        prefix = Path(parent).relative_to(root)
        folders[:] = sorted(name for name in folders if belongs((prefix / name).as_posix()))
        for name in sorted(files):
            path = root / prefix / name
            relative = (prefix / name).as_posix()
            if belongs(relative) and path.is_file() and not path.is_symlink() and _is_text(path):
                yield relative, path


def _unreadable(error: OSError) -> NoReturn:
    raise GraphcloneError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _chunks(path: Path, size: int = _CHUNK) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(size):
                yield chunk
    except OSError as error:
        _unreadable(error)


def _is_text(path: Path) -> bool:
    return b"\0" not in next(_chunks(path, _HEAD), b"\0")


def _share(name: str) -> int:
    """A hash of a relative path, 64 bits."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")


def _bound(texts: _Texts) -> int:
    """Files whose hash is below are for validation: one in twenty, but at least one, and not all.

    Reads on until it knows, which is after some twenty files.
    """
    usual = 2**64 // _HELD_OUT
    lowest, highest = 2**64, 0
    for name, _ in texts():
        share = _share(name)
        lowest, highest = min(lowest, share), max(highest, share)
        if lowest < usual <= highest:
            return usual
    return highest if highest < usual else lowest + 1


class _Growing:
    """A .npy file of bytes whose number is known at the end only; its header has room for that."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tokens = file, 0
        self.close()

    def write(self, data: bytes) -> None:
        self.tokens += self.file.write(data)

    def close(self) -> None:
        """Write the header with the number there is now."""
        self.file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.tokens,)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _write(texts: _Texts, bound: int | None, train: _Growing, validation: _Growing) -> _Card:
    """Write the tokens of all texts; without a bound there is one text, and its end is for validation."""
    digest, files, size = hashlib.sha256(), 0, 0
    for name, path in texts():
        content = hashlib.sha256()
        kind = train if bound is None or _share(name) >= bound else validation
        cut = path.stat().st_size
        cut -= max(1, cut // _HELD_OUT)
        if kind.tokens:
            kind.write(b"\0")
        for chunk in _chunks(path):
            content.update(chunk)
            size += len(chunk)
            head = max(0, cut - train.tokens) if bound is None else len(chunk)
            kind.write(chunk[:head])
            validation.write(chunk[head:])
        digest.update(os.fsencode(name) + b"\0" + content.digest())
        files += 1
    train.close()
    validation.close()
    return _Card("", "", True, files, size, digest.hexdigest(), 256, train.tokens, validation.tokens)
