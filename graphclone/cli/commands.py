"""What the commands of the command line do. Each takes the parsed arguments and returns the exit code."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphclone import inspection
from graphclone.cli import checkpoint_commands, report
from graphclone.clones import saving
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.writer import CheckpointSource
from graphclone.passes import default_pipeline
from graphclone.passes.registry import available, parse, unparse
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.printer import print_state
from graphclone.pipeline.runner import Pass, lacking
from graphclone.pipeline.state import State
from graphclone.rules import FAMILIES
from graphclone.runtime.files import written
from graphclone.sources import OnnxFile, Source, resolve

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone, Traced
    from graphclone.formats.onnx.drawn_inputs import Given
    from graphclone.formats.torch.verifier import Report


def inspect(arguments: Namespace) -> int:
    """Show what can grow."""
    source = resolve(arguments.model, _inputs(arguments))
    with report.progress(f"tracing {source.name}"):
        traced = source.trace(arguments.widen_io)
    if arguments.why is not None:
        return _explain(traced, arguments)
    found = inspection.inspect(traced)
    if arguments.json:
        report.show_json(found.to_dict())
    else:
        report.show_inspection(found, everything=arguments.all)
    return 0


def _inputs(arguments: Namespace) -> Given:
    """What the user says about the inputs of an .onnx file: sizes, and arrays, which say more."""
    if arguments.inputs is None:
        return dict(arguments.input)
    from graphclone.runtime.npz import load_arrays

    return dict(arguments.input) | load_arrays(Path(arguments.inputs))


def _explain(traced: Traced, arguments: Namespace) -> int:
    found = inspection.explain(traced, arguments.why)
    if arguments.json:
        report.show_json([dataclasses.asdict(explanation) for explanation in found])
        return 0
    for explanation in found:
        report.show_text(report.explained(explanation))
    return 0


# Cloning


def clone(arguments: Namespace) -> int:
    """Write a wider model, once it is verified."""
    given = _inputs(arguments)
    source, target = resolve(arguments.model, given), Path(arguments.output)
    if isinstance(source, CheckpointSource) and target.suffix not in saving.SUFFIXES:
        return checkpoint_commands.clone(arguments)
    checkpoint_commands.refuse_options(arguments)
    saving.check_target(target, arguments.force)
    passes = _pipeline(arguments.passes)
    _check_printed(arguments.print_after, passes)
    if isinstance(source, OnnxFile):
        source.check_target(target)
    graphs: dict[str, str] = {}
    try:
        made = _made(source, arguments, passes, graphs)
    finally:
        for text in graphs.values() if not arguments.json else ():
            report.show_text(text)
    if arguments.dry_run:
        _show(arguments, made, None, graphs)
        return 0
    with written(target) as stage:
        with report.progress(f"writing {target.name}"):
            saving.write(made, stage)
        verification = None if arguments.no_verify else _verified(made, stage, arguments)
    _show(arguments, made, verification, graphs)
    return 0


def _made(source: Source | OnnxFile, arguments: Namespace, passes: Sequence[Pass], graphs: dict[str, str]) -> Clone:
    def after(step: Pass, state: State) -> None:
        if "dims" in step.ensures:
            inspection.refuse_pinned(state, arguments.widen)
        if step.name in arguments.print_after:
            graphs[step.name] = print_state(state)

    with report.progress(f"tracing {source.name}"):
        return source.clone(
            widen=arguments.widen,
            widen_io=arguments.widen_io,
            strategy=arguments.strategy,
            snr_db=arguments.snr_db,
            seed=arguments.seed,
            untie=arguments.untie,
            passes=passes,
            after=after,
        )


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
    known = [step.name for step in passes]
    for name in names:
        if name not in known:
            raise GraphcloneError(f"--print-after: no pass is called {name!r}; there are {', '.join(known)}")


def _verified(made: Clone, stage: Path, arguments: Namespace) -> Report:
    with report.progress("verifying") as advance:
        written = stage if stage.suffix == ".onnx" else True
        found = made.verify(provider=arguments.provider, onnx=written, progress=advance)
    if arguments.json and not found.ok:
        report.show_json({"verification": found.to_dict()})
    found.raise_if_failed()
    return found


def _show(arguments: Namespace, made: Clone, verification: Report | None, graphs: dict[str, str]) -> None:
    if arguments.json:
        report.show_json(report.clone_record(made, arguments.output, made.graph.notes, graphs, verification))
        return
    report.show_clone(made)
    report.show_notes(made.graph.notes)
    if arguments.timing:
        report.show_timings(made.timings)
    report.show_text(report.outcome(arguments, verification, saving.size_in_bytes(made)))


# Everything else


def verify(arguments: Namespace) -> int:
    """Compare two ONNX files, or two checkpoints."""
    with report.progress("verifying"):
        found = _compared(arguments)
    if arguments.json:
        report.show_json(found.to_dict())
    else:
        report.show_text(str(found))
    found.raise_if_failed()
    return 0


def _compared(arguments: Namespace) -> Report:
    from graphclone.formats.huggingface.verifier import verify_folders
    from graphclone.formats.torch.verifier import verify_files

    texts = (arguments.source, arguments.clone)
    found = [resolve(text) if Path(text).is_dir() else None for text in texts]
    if all(isinstance(source, CheckpointSource) for source in found):
        return verify_folders(*texts)
    source, wide = map(_onnx, texts)
    return verify_files(source, wide, arguments.provider, inputs=_inputs(arguments))


def _onnx(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise GraphcloneError(f"{text}: a folder; verify compares two .onnx files, or two folders of checkpoints")
    if not path.is_file():
        raise GraphcloneError(f"{text}: no such file")
    if path.suffix != ".onnx":
        raise GraphcloneError(f"{text}: verify compares .onnx files; write one with graphclone clone -o")
    return path


def list_passes(arguments: Namespace) -> int:
    """List the passes, plug-ins' included."""
    rows = [_pass_row(name, cls) for name, cls in available().items()]
    if arguments.json:
        report.show_json(rows)
    else:
        report.show_passes(rows)
        report.show_text(f"the default pipeline: {unparse(default_pipeline())}")
    return 0


def _pass_row(name: str, cls: type[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": (cls.__doc__ or "").strip().split("\n")[0],
        "options": {option.name.replace("_", "-"): option.default for option in dataclasses.fields(cls)},
        "requires": sorted(cls.requires),
        "ensures": sorted(cls.ensures),
    }


def list_rules(arguments: Namespace) -> int:
    """List the ops that have rules, or those of a model that have none."""
    if arguments.missing is not None:
        return _list_missing(arguments)
    families = {family.__name__.rpartition(".")[2]: sorted(family.RULES) for family in FAMILIES}
    if arguments.json:
        report.show_json(families)
    else:
        report.show_rules(families)
    return 0


def _list_missing(arguments: Namespace) -> int:
    source = resolve(arguments.missing)
    with report.progress(f"tracing {source.name}"):
        missing = inspection.missing_rules(source.trace())
    if arguments.json:
        report.show_json([dataclasses.asdict(row) for row in missing])
    else:
        report.show_missing(source.name, missing)
    return 0
