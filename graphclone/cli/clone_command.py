"""Cloning, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from graphclone import report as pages
from graphclone import terminal
from graphclone.cli import checkpoint_clone, dcp_clone, report
from graphclone.cli.arguments import CloneArguments
from graphclone.cli.commands import user_inputs
from graphclone.cli.requests import Watch, command_line, request_of
from graphclone.clones import saving, summary
from graphclone.errors import GraphcloneError, Remedy
from graphclone.formats.huggingface.source import CheckpointSource
from graphclone.formats.torch.source import FunctionSource
from graphclone.passes import default_pipeline
from graphclone.passes.registry import parse
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.runner import Pass, lacking
from graphclone.runtime import ranks
from graphclone.runtime.files import written
from graphclone.sources import resolve

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.clones.source import Source
    from graphclone.verification.checks import Report

SUFFIXES = (".onnx", ".pt2", ".safetensors")
"""The suffixes of the files that a clone can become."""

_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".pt", ".pth")
"""Suffixes of weights in other forms: whoever gives one wants no folder of that name."""


def clone(arguments: CloneArguments) -> int:
    """Write a wider model, once it is verified."""
    source, target = resolve(arguments.model, user_inputs(arguments)), Path(arguments.output)
    if arguments.weights is not None:
        if not isinstance(source, FunctionSource):
            raise GraphcloneError("--weights is for package.module:function, which gives the module they belong to")
        source = replace(source, weights=Path(arguments.weights))
    if arguments.html is not None:
        _check_page(arguments)
    if arguments.format == "dcp":
        return dcp_clone.clone(arguments, source)
    if isinstance(source, CheckpointSource):
        _refuse_weights_file(target)
        if target.suffix not in SUFFIXES:
            dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
            stored = replace(source, dtype=dtype, trust_remote_code=arguments.trust_remote_code)
            return checkpoint_clone.clone(arguments, stored)
        source = source.in_memory()
    _refuse_options(arguments)
    _check_target(target, source, arguments)
    passes = _pipeline(arguments.passes)
    _check_printed(arguments.print_after, passes)
    watch = Watch(arguments)
    try:
        with terminal.progress(f"tracing {source.name}"):
            result = source.clone(request_of(arguments), passes=passes, after=watch)
    finally:
        for text in watch.graphs.values() if not arguments.json else ():
            terminal.show_text(text)
    if arguments.dry_run:
        _show(arguments, result, None, watch.graphs)
        return 0
    with written(target) as stage:
        with terminal.progress(f"writing {target.name}"):
            _write(result, stage)
        verification = None if arguments.no_verify else _verified(result, stage, arguments)
    with report.after_writing(target):
        if arguments.html is not None:
            pages.write(pages.page_of_clone(result, command_line(arguments), verification), Path(arguments.html))
        _show(arguments, result, verification, watch.graphs)
    return 0


def _refuse_weights_file(target: Path) -> None:
    if target.suffix in _WEIGHTS:
        forms = ", ".join(SUFFIXES)
        raise GraphcloneError(f"{target}: a checkpoint is written as a folder, or as {forms}; leave the suffix out")


def _check_page(arguments: CloneArguments) -> None:
    if arguments.dry_run:
        raise GraphcloneError(
            "--dry-run writes nothing, so leave --html out; inspect draws a model before it is cloned"
        )
    if arguments.format is not None:
        raise GraphcloneError("--html: a clone in many processes' files has no page; write another form")
    pages.check_target(Path(str(arguments.html)))


def _refuse_options(arguments: CloneArguments) -> None:
    """Refuse options that mean something for checkpoints only."""
    if ranks.current().count > 1:
        raise GraphcloneError(
            f"{arguments.output}: is written by one process; several share folders of checkpoints only"
        )
    for option in (
        "dtype",
        "like",
        "keep_vocab",
        "max_shard_size",
        "omit",
        "optimizer",
        "resume",
        "trust_remote_code",
        "verify",
    ):
        if getattr(arguments, option):
            raise GraphcloneError(f"--{option.replace('_', '-')} is for Hugging Face checkpoints that become folders")


def _check_target(target: Path, source: Source, arguments: CloneArguments) -> None:
    """Refuse a path that nothing can be written to, before any work is done."""
    if target.suffix not in SUFFIXES:
        raise GraphcloneError(f"{target}: the suffix says what to write: {', '.join(SUFFIXES)}")
    if target.suffix not in source.suffixes:
        raise GraphcloneError(f"{target}: {source.name} can be written as {' or '.join(source.suffixes)} only")
    if not target.parent.is_dir():
        raise GraphcloneError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise GraphcloneError(f"{target}: is a folder; give the path of a file")
    for file in (target, target.with_name(f"{target.name}.data")):  # large weights lie beside an ONNX model
        if file.exists() and not arguments.force:
            raise GraphcloneError(f"{file}: exists already", Remedy("force", "overwrites it"))
    if target.exists() and Path(arguments.model).exists() and target.samefile(arguments.model):
        raise GraphcloneError(f"{target}: is the source; write the clone elsewhere")


def _write(clone: Clone, path: Path) -> None:
    saving.check_room(path, saving.size_in_bytes(clone.graph))
    try:
        clone.save(path)
    except GraphcloneError as error:
        if isinstance(error.__cause__, OSError):  # whoever gave the path knows what the user calls it
            raise error.__cause__ from None
        raise


def _pipeline(text: str | None) -> Sequence[Pass]:
    """The passes written as text, if their order makes a clone; the default ones without text."""
    if text is None:
        return default_pipeline()
    passes = parse(text)
    if (lack := lacking(passes, CLONED)) is not None:
        step, names = lack
        missing = ", ".join(names)
        if step is None:
            raise GraphcloneError(f"--passes: nothing ensures {missing}, so there is no clone")
        raise GraphcloneError(f"--passes: {step.name} needs {missing}, which no pass before it ensures")
    return passes


def _check_printed(names: Sequence[str], passes: Sequence[Pass]) -> None:
    available = [step.name for step in passes]
    for name in names:
        if name not in available:
            raise GraphcloneError(f"--print-after: no pass is called {name!r}; there are {', '.join(available)}")


def _verified(clone: Clone, stage: Path, arguments: CloneArguments) -> Report:
    with terminal.progress("verifying") as advance:
        written = stage if stage.suffix == ".onnx" else True
        verification = clone.verify(provider=arguments.provider, onnx=written, progress=advance)
    if arguments.json and not verification.ok:
        terminal.show_json({"verification": verification.to_dict()})
    verification.raise_if_failed()
    return verification


def _show(arguments: CloneArguments, result: Clone, verification: Report | None, graphs: dict[str, str]) -> None:
    if arguments.json:
        terminal.show_json(summary.clone_record(result, arguments.output, result.graph.notes, graphs, verification))
        return
    report.show_clone(result)
    report.show_notes(result.graph.notes)
    if arguments.timing:
        report.show_timings(result.timings)
    terminal.show_text(report.outcome(arguments, verification, saving.size_in_bytes(result.graph)))
