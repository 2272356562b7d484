"""The corpus of a study: what is read, how it is split, and that it stays on disk."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphclone.errors import GraphcloneError
from graphclone.study import corpus as module
from graphclone.study.corpus import Corpus, prepare


def _texts(folder: Path, texts: dict[str, bytes]) -> str:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return str(folder)


def _many(count: int) -> dict[str, bytes]:
    return {f"{number % 7}/{number}.txt": f"<{number}>".encode() for number in range(count)}


def _documents(corpus: Corpus) -> tuple[list[bytes], list[bytes]]:
    train, validation = (bytes(part).split(b"\0") for part in (corpus.train, corpus.validation))
    return train, validation


def _corpus(train: int = 1000, validation: int = 100) -> Corpus:
    return Corpus(70000, "", "", False, np.arange(train, dtype=np.uint32), np.arange(validation, dtype=np.uint32))


def _mapped(tokens: np.ndarray) -> bool:
    return isinstance(tokens, np.memmap) and not tokens.flags.writeable


# Text.


def test_every_text_is_in_exactly_one_half(tmp_path: Path) -> None:
    texts = _many(400)
    corpus = prepare(_texts(tmp_path / "texts", texts), tmp_path / "corpus")
    train, validation = _documents(corpus)
    assert sorted(train + validation) == sorted(texts.values())
    assert 5 <= len(validation) <= 40  # one in twenty
    assert corpus.text and corpus.vocabulary == 256 and corpus.train.dtype == np.uint8


def test_the_split_depends_on_relative_paths_alone(tmp_path: Path) -> None:
    texts = _many(100)
    here = prepare(_texts(tmp_path / "a", texts), tmp_path / "corpus a")
    changed = {name: text + b"!" for name, text in texts.items()}
    there = prepare(_texts(tmp_path / "b" / "c", changed), tmp_path / "corpus b")
    assert [text + b"!" for text in _documents(here)[1]] == _documents(there)[1]


def test_documents_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    texts = {name: name.encode() for name in ("b", "a", "d/b", "d/a", "c/z", "e/f/g")}
    train, validation = _documents(prepare(_texts(tmp_path / "texts", texts), tmp_path / "corpus"))
    order = [b"a", b"b", b"c/z", b"d/a", b"d/b", b"e/f/g"]
    assert train == [name for name in order if name in train]
    assert sorted(train + validation) == order


@pytest.mark.parametrize("stems", ["ab", "qrs", "1234567"])
def test_few_files_fill_both_halves(tmp_path: Path, stems: str) -> None:
    corpus = prepare(_texts(tmp_path / "t", {stem: stem.encode() for stem in stems}), tmp_path / "corpus")
    train, validation = _documents(corpus)
    assert sorted(train + validation) == [stem.encode() for stem in sorted(stems)]


@pytest.mark.parametrize(
    ("shares", "validation"),
    [([13, 200, 15], {13}), ([1, 2, 3], {1, 2}), ([1, 90, 12, 13, 80], {1, 12})],
)
def test_files_are_held_out_by_their_hash(
    monkeypatch: pytest.MonkeyPatch, shares: list[int], validation: set[int]
) -> None:
    monkeypatch.setattr(module, "_share", lambda name: int(name) * 2**56)  # of 256 the twentieth is 12.8
    bound = module._bound(lambda: ((str(share), Path()) for share in shares))
    assert {share for share in shares if share * 2**56 < bound} == validation


@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_single_text_is_split_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_folder: bool, chunk: int
) -> None:
    monkeypatch.setattr(module, "_chunks", lambda path, size=chunk, read=module._chunks: read(path, size))
    text = bytes(range(1, 101))
    folder = _texts(tmp_path / "texts", {"all.txt": text})
    corpus = prepare(folder if as_folder else f"{folder}/all.txt", tmp_path / "corpus")
    assert bytes(corpus.train) == text[:95] and bytes(corpus.validation) == text[95:]


def test_what_is_not_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.txt").write_bytes(b"far")
    late = b"x" * 8192 + b"\0"
    texts = {"a": b"one", "b.bin": b"two", "late": late, "binary": b"x" * 8191 + b"\0", "empty": b""}
    source = Path(_texts(tmp_path / "texts", texts | {".hidden": b"h", ".git/config": b"g"}))
    (source / "file").symlink_to(tmp_path / "elsewhere" / "far.txt")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "again").symlink_to(source / "a")
    os.mkfifo(source / "pipe")
    train, validation = _documents(prepare(str(source), tmp_path / "corpus"))
    assert sorted(filter(None, train + validation)) == [b"one", b"two", late[:-1]]
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["files"] == 3


def test_the_digest_is_that_of_paths_and_contents(tmp_path: Path) -> None:
    def digest(texts: dict[str, bytes], name: str) -> str:
        return prepare(_texts(tmp_path / name, texts), tmp_path / f"corpus {name}").digest

    contents = {name: hashlib.sha256(name.encode()).digest() for name in "ab"}
    expected = hashlib.sha256(b"a\0" + contents["a"] + b"b\0" + contents["b"]).hexdigest()
    assert digest({"b": b"b", "a": b"a"}, "1") == expected
    assert digest({"a": b"a", "b": b"b", ".c": b"c", "d": b""}, "2") == expected
    assert digest({"a": b"a", "c": b"b"}, "3") != expected
    assert digest({"a": b"ab", "b": b""}, "4") != expected
    assert digest({"a": b"b", "b": b"a"}, "5") != expected


def test_tokens_are_mapped_into_memory_and_read_only(tmp_path: Path) -> None:
    corpus = prepare(_texts(tmp_path / "texts", _many(50)), tmp_path / "corpus")
    assert _mapped(corpus.train) and _mapped(corpus.validation)
    np.testing.assert_array_equal(np.load(tmp_path / "corpus" / "train.npy"), corpus.train)


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    texts = _many(50)
    source = _texts(tmp_path / "texts", texts)
    corpus = prepare(source, tmp_path / "study" / "corpus")
    said = json.loads((tmp_path / "study" / "corpus" / "corpus.json").read_text())
    size = sum(map(len, texts.values()))
    expected = {"source": source, "files": 50, "bytes": size, "digest": corpus.digest, "vocabulary": 256}
    assert said | expected == said
    assert (said["train_tokens"], said["validation_tokens"]) == (len(corpus.train), len(corpus.validation))
    assert len(corpus.train) + len(corpus.validation) == size + 50 - 2
    assert said["description"] == corpus.description == "texts, 50 files, 0.0 MB"
    names = {path.name for path in (tmp_path / "study" / "corpus").iterdir()}
    assert names == {"train.npy", "validation.npy", "corpus.json"}


def test_a_corpus_is_read_from_its_source_once(tmp_path: Path) -> None:
    source = _texts(tmp_path / "texts", _many(50))
    first = prepare(source, tmp_path / "corpus")
    expected = bytes(first.train), bytes(first.validation), first.digest, first.description
    for path in (tmp_path / "texts").rglob("*.txt"):
        path.unlink()
    again = prepare(source, tmp_path / "corpus")
    assert (bytes(again.train), bytes(again.validation), again.digest, again.description) == expected
    assert _mapped(again.train) and _mapped(again.validation)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _texts(tmp_path / "texts", _many(5))

    def fail(data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Growing, "write", lambda self, data: fail(data))
    with pytest.raises(GraphcloneError, match=r"cannot write .*corpus\.json: No space left on device"):
        prepare(source, tmp_path / "corpus")
    assert not list((tmp_path / "corpus").iterdir())
    monkeypatch.undo()
    assert len(prepare(source, tmp_path / "corpus").train)


# The standard library.


def test_the_standard_library_is_the_same_wherever_it_is_read(tmp_path: Path) -> None:
    first, again = (prepare("stdlib", tmp_path / name) for name in "ab")
    assert first.digest == again.digest
    np.testing.assert_array_equal(first.train, again.train)
    assert len(first.train) > 5_000_000
    assert 0.01 < len(first.validation) / len(first.train) < 0.1
    assert f"Python {sys.version.split()[0]}" in first.description


def test_the_standard_library_is_that_alone(tmp_path: Path) -> None:
    kept = ["abc.py", "email/header.py", "json/__init__.py", "unittest/case.py"]
    left_out = [
        *("site-packages/numpy.py", "dist-packages/apt.py", "test/abc.py", "unittest/test/case.py", "idlelib/run.py"),
        *("ctypes/test/a.py", "email/tests/b.py", "_sysconfigdata__linux_x86_64-linux-gnu.py", "sitecustomize.py"),
        *("json/__pycache__/decoder.pyc", "config-3.11/python-config.py", "LICENSE.txt", "json/notes.txt"),
        *(
            "ctypes/macholib/dyld.py",
            "tkinter/__init__.py",
            "encodings/cp037.py",
            "pydoc_data/topics.py",
            "lib2to3/tests/x.py",
        ),
    ]
    _texts(tmp_path, dict.fromkeys(kept + left_out, b"text"))
    assert [name for name, _ in module._stdlib(tmp_path)] == kept


# Tokens in a file.


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64"])
def test_a_npy_file_is_mapped_where_it_lies(tmp_path: Path, dtype: str) -> None:
    tokens = (np.arange(200) % 101).astype(dtype)
    np.save(tmp_path / "tokens.npy", tokens)
    corpus = prepare(str(tmp_path / "tokens.npy"), tmp_path / "corpus")
    assert _mapped(corpus.train) and _mapped(corpus.validation)
    np.testing.assert_array_equal(corpus.train, tokens[:190])
    np.testing.assert_array_equal(corpus.validation, tokens[190:])
    assert (corpus.vocabulary, corpus.text) == (101, False)
    assert corpus.digest == hashlib.sha256((tmp_path / "tokens.npy").read_bytes()).hexdigest()
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["corpus.json"]


def test_a_bin_file_is_little_endian_uint16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 3)  # the greatest token is neither in the first chunk nor in the last
    (tmp_path / "tokens.bin").write_bytes(bytes([1, 0, 2, 0, 3, 0, 4, 0, 0xFE, 0xFF, 5, 0, 6, 0, 7, 0]))
    corpus = prepare(str(tmp_path / "tokens.bin"), tmp_path / "corpus")
    assert corpus.train.tolist() == [1, 2, 3, 4, 0xFFFE, 5, 6]
    assert corpus.validation.tolist() == [7]
    assert corpus.vocabulary == 0xFFFF
    assert _mapped(corpus.train)
    assert corpus.digest == hashlib.sha256((tmp_path / "tokens.bin").read_bytes()).hexdigest()


def test_a_token_file_is_scanned_anew_only_when_it_was_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(100))
    first = prepare(str(path), tmp_path / "corpus")
    scanned = []
    monkeypatch.setattr(module, "_scan", lambda *args, scan=module._scan: scanned.append(args) or scan(*args))

    def again() -> tuple[int, int]:
        corpus = prepare(str(path), tmp_path / "corpus")
        assert (corpus.digest, corpus.vocabulary) == (first.digest, 100)
        return len(scanned), len(corpus.train)

    assert again() == (0, 95)
    os.utime(path, ns=(0, 0))  # as a copy on another machine has its own time
    assert again() == (1, 95)
    assert again() == (1, 95)
    np.save(path, np.arange(100)[::-1])
    with pytest.raises(GraphcloneError, match="no longer what"):
        prepare(str(path), tmp_path / "corpus")


# Batches and windows.


def test_a_batch_is_windows_of_consecutive_tokens() -> None:
    batch = _corpus().batch(step=3, batch=5, context=7, seed=1)
    assert batch.shape == (5, 8) and batch.dtype == torch.int64
    assert (batch.diff() == 1).all()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    corpus = _corpus(100_000)
    known = {(seed, step): corpus.batch(step, 4, 8, seed) for seed in (0, 1, 2**32, 2**64 - 1) for step in (0, 1, 2)}
    again = _corpus(100_000)
    other = {(seed, step): again.batch(step, 4, 8, seed) for seed, step in reversed(known)}
    assert [key for key, batch in known.items() if not torch.equal(batch, other[key])] == []
    assert len({tuple(batch[:, 0].tolist()) for batch in known.values()}) == len(known)


def test_batches_are_the_same_on_every_machine() -> None:
    assert _corpus().batch(step=7, batch=6, context=4, seed=5)[:, 0].tolist() == [780, 178, 325, 718, 951, 856]


def test_batches_reach_every_token() -> None:
    starts = _corpus(train=12).batch(step=0, batch=500, context=7, seed=0)[:, 0]
    assert set(starts.tolist()) == {0, 1, 2, 3, 4}


def test_a_corpus_of_one_window_is_enough() -> None:
    corpus = _corpus(train=8, validation=8)
    assert corpus.batch(0, 2, 7, 0).tolist() == [list(range(8))] * 2
    assert corpus.windows(5, 7).tolist() == [list(range(8))]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 30))
def test_windows_are_apart_and_evenly_spread(length: int, count: int, context: int) -> None:
    corpus = _corpus(validation=length)
    if length <= context:
        with pytest.raises(GraphcloneError, match=f"has {length} validation tokens"):
            corpus.windows(count, context)
        return
    windows = corpus.windows(count, context)
    assert windows.dtype == torch.int64
    assert windows.shape == (min(count, length // (context + 1)), context + 1)
    assert (windows.diff() == 1).all() and windows.max() < length
    gaps = windows[:, 0].diff()
    assert windows[0, 0] == 0 and (gaps > context).all()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert length - windows[-1, 0] <= length / len(windows) + 1


def test_a_batch_of_great_tokens_is_exact(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.full(60, 2**31 - 2, np.uint32))
    corpus = prepare(str(tmp_path / "t.npy"), tmp_path / "corpus")
    assert corpus.vocabulary == 2**31 - 1
    assert (corpus.batch(0, 3, 9, 0) == 2**31 - 2).all()


# Refusals.


def _object_array(path: Path) -> None:
    np.save(path, np.array([print], dtype=object), allow_pickle=True)


def _cut_off(path: Path) -> None:
    np.save(path, np.arange(1000))
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("float.npy", lambda path: np.save(path, np.ones(50)), r"holds float64 of shape \(50,\): tokens are one-dim"),
        ("square.npy", lambda path: np.save(path, np.ones((5, 5), np.int32)), r"holds int32 of shape \(5, 5\)"),
        ("scalar.npy", lambda path: np.save(path, np.int32(5)), r"shape \(\)"),
        ("bool.npy", lambda path: np.save(path, np.ones(50, bool)), "holds bool"),
        ("big.npy", lambda path: np.save(path, np.ones(50, ">u2")), "holds >u2"),
        ("record.npy", lambda path: np.save(path, np.ones(50, [("a", "u2")])), "tokens are one-dimensional"),
        ("pickle.npy", _object_array, "cannot read tokens from .*Python objects"),
        ("cut.npy", _cut_off, "cannot read tokens from .*cut.npy"),
        ("text.npy", lambda path: path.write_text("hello"), "cannot read tokens from .*text.npy"),
        ("nothing.npy", Path.touch, "cannot read tokens from .*nothing.npy"),
        ("empty.npy", lambda path: np.save(path, np.array([], np.int64)), "empty.npy"),
        ("one.npy", lambda path: np.save(path, np.array([1])), "holds 1 tokens: that is too few"),
        ("negative.npy", lambda path: np.save(path, np.array([5, -100, 7])), "holds the token -100"),
        ("great.npy", lambda path: np.save(path, np.array([5, 2**31 - 1])), "the token 2147483647, but tokens are 0"),
        ("nothing.bin", Path.touch, "cannot read tokens from .*nothing.bin"),
        ("odd.bin", lambda path: path.write_bytes(b"abc"), "cannot read tokens from .*odd.bin"),
        ("one.bin", lambda path: path.write_bytes(b"ab"), "holds 1 tokens"),
        ("missing.npy", lambda path: None, "cannot read tokens from .*missing.npy: No such file"),
        (
            "missing.txt",
            lambda path: None,
            "there is no .*missing.txt'?: a corpus is stdlib, site-packages, debian-english, a folder",
        ),
        ("folder", Path.mkdir, "there is no text in"),
        ("empty.txt", Path.touch, "there is no text in"),
        ("data.zip", lambda path: path.write_bytes(b"PK\0"), "there is no text in"),
        ("short.txt", lambda path: path.write_bytes(b"a"), "holds 1 bytes: that is too little"),
    ],
)
def test_a_bad_source_is_refused(tmp_path: Path, name: str, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(GraphcloneError, match=message) as refusal:
        prepare(str(tmp_path / name), tmp_path / "corpus")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "corpus" / "corpus.json").exists()


def test_the_packages_beside_python_give_their_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a.py", "one/b.py", "two/c.py", "two/notes.txt", ".hidden/d.py"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"value = {name!r}\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: {"purelib": str(tmp_path / "site")}[name])
    corpus = prepare("site-packages", tmp_path / "corpus")
    assert "3 files" in corpus.description
    assert len(corpus.train) + len(corpus.validation) == 3 * len("value = 'one/a.py'\n") + 1


@pytest.mark.parametrize("source", ["b", "stdlib", "tokens.npy"])
def test_another_source_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _texts(tmp_path / "b", _many(5))
    prepare(_texts(tmp_path / "a", _many(5)), tmp_path / "corpus")
    np.save(tmp_path / "tokens.npy", np.arange(9))
    with pytest.raises(GraphcloneError, match=r"holds the corpus of .*: give another folder, or delete this one"):
        prepare(source, tmp_path / "corpus")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "corpus.json").write_text("{"),
        lambda folder: (folder / "corpus.json").write_text("[]"),
        lambda folder: (folder / "corpus.json").write_text("{}"),
        lambda folder: (folder / "corpus.json").write_bytes(b"\xff"),
        lambda folder: np.save(folder / "train.npy", np.zeros(3, np.uint8)),
    ],
)
def test_a_damaged_corpus_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    source = _texts(tmp_path / "texts", _many(50))
    prepare(source, tmp_path / "corpus")
    damage(tmp_path / "corpus")
    with pytest.raises(GraphcloneError, match="is damaged: delete that folder"):
        prepare(source, tmp_path / "corpus")


def test_a_missing_half_is_refused(tmp_path: Path) -> None:
    source = _texts(tmp_path / "texts", _many(50))
    prepare(source, tmp_path / "corpus")
    (tmp_path / "corpus" / "validation.npy").unlink()
    with pytest.raises(GraphcloneError, match=r"cannot read tokens from .*validation\.npy: No such file"):
        prepare(source, tmp_path / "corpus")


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _texts(tmp_path / "texts", _many(5))

    def refuse(self: Path, *args: Any, opened: Callable[..., Any] = Path.open, **options: Any) -> Any:
        if self.suffix == ".txt":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(GraphcloneError, match=r"cannot read .*\.txt: Permission denied"):
        prepare(source, tmp_path / "corpus")


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _texts(tmp_path / "texts", _many(9))

    def refuse(path: str, scan: Callable[[str], Any] = os.scandir) -> Any:
        if path.endswith("/3"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(GraphcloneError, match=r"cannot read .*texts/3: Permission denied"):
        prepare(source, tmp_path / "corpus")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = _texts(tmp_path / "texts", _many(5))
    with pytest.raises(GraphcloneError, match=r"cannot write to .*file: File exists"):
        prepare(source, tmp_path / "file")


def test_a_corpus_inside_its_own_source_is_refused(tmp_path: Path) -> None:
    source = _texts(tmp_path / "texts", _many(5))
    with pytest.raises(GraphcloneError, match=r"lies in .*give a folder outside it"):
        prepare(source, tmp_path / "texts" / "study" / "corpus")


def test_a_short_corpus_is_refused() -> None:
    message = "has 8 training tokens, and a window takes 9: give a longer corpus or a shorter context"
    with pytest.raises(GraphcloneError, match=message):
        _corpus(train=8).batch(0, 1, 8, 0)
