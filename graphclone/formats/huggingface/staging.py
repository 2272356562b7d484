"""Write a checkpoint's folder: shards first, all else after them, under another name until it is whole.

``OUT`` is written as ``OUT.partial``, which holds a record of what is being written and which shards are finished, so
that a run that was killed can go on. It becomes ``OUT`` by being renamed, once everything in it is done and verified.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from graphclone.errors import GraphcloneError, NotEquivalentError, Remedy, StoppedError
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.sentence_modules import MODULES, module_folders
from graphclone.formats.huggingface.weights import INDEX, PICKLE, PICKLE_INDEX, SINGLE
from graphclone.runtime.files import aside, replace_folder
from graphclone.runtime.ranks import ALONE, Ranks
from graphclone.runtime.shards import Shard, write_shards

CARD = "README.md"
RECORD = "graphclone-progress.json"
_RECORDS = "graphclone-progress*.json"

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ckpt", ".ot", ".tflite"}
_OWN = {CONFIG, CARD, RECORD, SINGLE, INDEX, PICKLE, PICKLE_INDEX, f"{PICKLE}.index.json", ".gitattributes"}

_NOT_OF_THE_CLONE = (
    "adapter_config.json", "trainer_state.json", "latest", "params.json", "*.index.json", "optimizer*", "scheduler*",
    "rng_state*", "*.distcp",
)  # fmt: skip
"""Files that go with weights that are not copied, or with a run of training that is not the clone's."""


_ANEW = Remedy("resume", value=None)


class Interrupted(KeyboardInterrupt):
    """The user's interrupt, with what was left behind.

    Attributes:
        message: what was left.
        remedy: what can be done with it.
    """

    def __init__(self, message: str, remedy: Remedy | None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass
class Staging:
    """The folder in which a checkpoint comes into being.

    Attributes:
        target: what it will be called.
        folder: what it is called so far.
        fingerprint: of everything that decides the bytes of the shards.
        finished: the finished shards by file name, each with the source tensors in it that hold NaNs.
        ranks: the processes that write to it.
    """

    target: Path
    folder: Path
    fingerprint: str
    finished: dict[str, list[str]] = field(default_factory=dict)
    ranks: Ranks = ALONE

    def record(self) -> None:
        """Note what is finished, so that another run may go on from here; each process in a file of its own."""
        text = json.dumps({"fingerprint": self.fingerprint, "finished": self.finished}, indent=2)
        name = RECORD if self.ranks.first else RECORD.replace(".", f"-{self.ranks.rank}.")
        write_text(self.folder / name, text)

    def write(self, shards: Sequence[Shard], advance: Callable[[int], None]) -> None:
        """Write the shards that are not finished; of several processes each writes its share.

        Raises:
            OSError: a file cannot be written.
            GraphcloneError: a tensor cannot be read.
        """

        def done(shard: Shard, nans: list[str]) -> None:
            self.finished[shard.file_name] = nans
            self.record()

        candidates = [shard for shard in shards if shard.file_name in self.finished]
        for shard in candidates:
            path = self.folder / shard.file_name
            if not path.is_file() or path.stat().st_size != shard.nbytes:
                del self.finished[shard.file_name]
            else:
                advance(shard.nbytes)
        missing = [shard for shard in shards if shard.file_name not in self.finished]

        def advance_together(count: int) -> None:
            self.ranks.look_out()
            advance(count)

        write_shards(self.folder, missing[self.ranks.rank :: self.ranks.count], done, advance_together)
        by_all = {name: nans for part in self.ranks.gathered(self.finished) for name, nans in part.items()}
        self.finished = {shard.file_name: by_all[shard.file_name] for shard in shards}

    def publish(self, force: bool) -> None:
        """Give the folder its name; one that it replaces goes away only then."""
        if self.target.exists() and not force:
            raise GraphcloneError(f"{self.target}: exists already", Remedy("force", "overwrites it"))
        replace_folder(self.folder, self.target)
        for record in self.target.glob(_RECORDS):
            record.unlink()


def check_target(target: Path, source: Path, *, force: bool, resume: bool) -> None:
    """Refuse a folder that cannot be written to, before any work is done.

    Raises:
        GraphcloneError: it is in the way, or is the source, or there is nothing to go on from.
    """
    if not target.parent.is_dir():
        raise GraphcloneError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_symlink() and not target.exists():
        raise GraphcloneError(f"{target}: a link to {target.readlink()}, which is not there; write elsewhere")
    if target.resolve() == source.resolve() or source.resolve().is_relative_to(target.resolve()):
        raise GraphcloneError(f"{target}: is where the source is; write elsewhere")
    if target.exists() and not force:
        raise GraphcloneError(f"{target}: exists already", Remedy("force", "overwrites it"))
    if target.exists() and not (target / CONFIG).is_file() and any(target.iterdir() if target.is_dir() else [target]):
        raise GraphcloneError(f"{target}: exists and is not a checkpoint, so it is not overwritten; write elsewhere")
    if aside(target).exists():
        raise GraphcloneError(
            f"{aside(target)}: is in the way; a run that was killed left there what it replaced, or move it"
        )
    partial = _partial(target)
    if resume and not partial.exists():
        raise GraphcloneError(f"{target}: there is nothing to resume", _ANEW)
    if partial.exists() and not (partial.is_dir() and (any(partial.glob(_RECORDS)) or not any(partial.iterdir()))):
        raise GraphcloneError(f"{partial}: is in the way, and no clone that is being written; move it")


@contextmanager
def staged(target: Path, fingerprint: str, *, resume: bool, ranks: Ranks = ALONE) -> Iterator[Staging]:
    """The folder to write to in place of the target. Shards finished in it outlive a failure.

    Of several processes the first makes it, and the others go on once it has.

    Raises:
        GraphcloneError: another run is writing to it, it is of another command, or it cannot be written to.
    """
    folder = _partial(target)
    with _locked(target) if ranks.first else nullcontext():
        finished = _finished(folder, fingerprint) if resume and ranks.first else {}
        staging = Staging(target, folder, fingerprint, finished, ranks)
        try:
            if ranks.first:
                if not resume:
                    _remove(folder)
                    folder.mkdir()
                staging.record()
            staging.finished = ranks.gathered(finished)[0]
            yield staging
        except StoppedError:
            raise
        except KeyboardInterrupt:
            remains, remedy = _remains(staging)
            raise Interrupted(f"interrupted; {remains}", remedy) from None
        except OSError as error:
            reason = error.strerror or str(error)
            remains, remedy = _remains(staging)
            raise GraphcloneError(f"cannot write {target}: {reason}; {remains}", remedy) from error
        except NotEquivalentError:
            _remove(folder)
            raise
        except GraphcloneError as error:
            remains, remedy = _remains(staging)
            raise GraphcloneError(f"{error.message}; {remains}", error.remedy or remedy) from error


def _remains(staging: Staging) -> tuple[str, Remedy | None]:
    """Tidy up after a failure: finished shards stay, for they can be used. What is left, and what to do with it."""
    if staging.ranks.count > 1:  # others may still be writing to it
        return f"finished shards are left in {staging.folder}", Remedy("resume", "goes on from them")
    count = len(staging.finished)
    if not count:
        _remove(staging.folder)
        return "nothing was left behind", None
    return f"{count} finished shards are left in {staging.folder}", Remedy("resume", "goes on from them")


def _finished(folder: Path, fingerprint: str) -> dict[str, list[str]]:
    marks, finished = set(), {}
    try:
        for path in sorted({folder / RECORD, *folder.glob(_RECORDS)}):
            record = json.loads(path.read_bytes())
            marks.add(record["fingerprint"])
            finished.update(record["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        raise GraphcloneError(f"{folder}: holds no record of what was being written", _ANEW) from None
    if marks != {fingerprint}:
        raise GraphcloneError(
            f"{folder}: was being written by another command, or from a source that has changed", _ANEW
        )
    return finished


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Held by one process at a time; the system lets go of it however the process ends."""
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise GraphcloneError(f"{target}: another run is writing it; wait for it to end") from None
    except OSError as error:
        raise GraphcloneError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


# The other files


def write_text(path: Path, text: str) -> None:
    """A file that is whole or not there."""
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(text)
    partial.replace(path)


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """The index of several shards; a single one needs none."""
    if len(shards) > 1:
        total = sum(slot.nbytes for shard in shards for slot in shard.slots)
        where = {slot.name: shard.file_name for shard in shards for slot in shard.slots}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """The last file that ``from_pretrained`` needs."""
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def copied(source: Path, folder: Path, *, code: bool) -> list[str]:
    """Copy what lies beside the weights and still belongs to them: tokenizer, generation config, licence.

    Args:
        source: folder of the source.
        folder: of the clone.
        code: whether code is copied.

    Returns:
        Names of what a user may miss.
    """
    modules = {MODULES, *module_folders(source)}  # written by themselves
    left_out = []
    for path in sorted(source.iterdir()):
        if path.name in _OWN or path.name in modules:
            continue
        if not path.is_file():  # a folder, or a pipe
            left_out += [path.name] if not path.name.startswith(".") else []
        elif any(map(path.match, _NOT_OF_THE_CLONE)):
            left_out.append(path.name)
        elif path.suffix not in _WEIGHTS and (code or path.suffix != ".py"):
            shutil.copyfile(path, folder / path.name)
    return left_out
