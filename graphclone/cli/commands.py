"""The commands of the command line, except ``clone``. Each takes its arguments and returns the exit code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphclone import inspection, terminal
from graphclone import report as pages
from graphclone.cli import report
from graphclone.cli.arguments import CloneArguments, InspectArguments, PassesArguments, RulesArguments, VerifyArguments
from graphclone.cli.reach_command import inspect_reach
from graphclone.clones import sharing
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.source import CheckpointSource
from graphclone.passes import default_pipeline
from graphclone.passes.registry import available, defaults, unparse
from graphclone.rules import FAMILIES, pattern_of
from graphclone.sources import resolve

if TYPE_CHECKING:
    from graphclone.clones.traced import Traced
    from graphclone.formats.onnx.drawn_inputs import UserInputs
    from graphclone.verification.checks import Report


def inspect(arguments: InspectArguments) -> int:
    """Show what can grow, what holds the rest, and what it costs."""
    _check_together(arguments)
    source = resolve(arguments.model, user_inputs(arguments))
    if isinstance(source, CheckpointSource):
        source = dataclasses.replace(source, trust_remote_code=arguments.trust_remote_code)
    _check_pages(arguments)
    if arguments.like is not None:
        return inspect_reach(arguments, source, arguments.like)
    with terminal.progress(f"tracing {source.name}"):
        traced = source.trace(arguments.widen_io)
    if arguments.ranks is not None:
        return _show_share(traced, arguments, arguments.ranks, arguments.devices or _DEVICE)
    if arguments.why is not None:
        return _explain(traced, arguments, arguments.why)
    findings = inspection.inspect(traced)
    _write_pages(arguments, traced)
    if arguments.json:
        terminal.show_json(findings.to_dict())
        return 0
    report.show_inspection(findings, everything=arguments.all)
    for path in (arguments.html, arguments.node_data):
        if path is not None:
            terminal.show_text(f"written to {path}")
    return 0


_DEVICE = "H100"


def _check_together(arguments: InspectArguments) -> None:
    """Refuse options that mean nothing without another one, and a device that nobody knows."""
    if arguments.devices not in {None, *sharing.DEVICES}:
        known = ", ".join(sharing.DEVICES)
        raise GraphcloneError(f"--devices: {arguments.devices!r} is not known; choose one of {known}")
    if arguments.devices is not None and arguments.ranks is None:
        raise GraphcloneError("--devices goes with --ranks, which says how many there are")
    if arguments.keep_vocab and arguments.like is None:
        raise GraphcloneError("--keep-vocab goes with --like, whose target may have another vocabulary")


def _check_pages(arguments: InspectArguments) -> None:
    """Refuse files that cannot be written, or would not show what else is asked for, before any work is done."""
    named = {"--html": arguments.html, "--node-data": arguments.node_data}
    asked = next((option for option, path in named.items() if path is not None), None)
    for option in ("like", "ranks", "why"):
        if asked is not None and getattr(arguments, option) is not None:
            raise GraphcloneError(f"{asked} shows the whole model: leave --{option} out")
    if arguments.html is not None:
        pages.check_target(Path(arguments.html))
    if arguments.node_data is not None and Path(arguments.node_data).suffix != ".json":
        raise GraphcloneError(f"{arguments.node_data}: node data is a .json file; give it that suffix")


def _write_pages(arguments: InspectArguments, traced: Traced) -> None:
    if arguments.html is None and arguments.node_data is None:
        return
    with terminal.progress("drawing"):
        page = pages.page_of(traced)
        if arguments.html is not None:
            pages.write(page, Path(arguments.html))
        if arguments.node_data is not None:
            pages.write_node_data(page, Path(arguments.node_data))


def _show_share(traced: Traced, arguments: InspectArguments, ranks: int, device: str) -> int:
    found = sharing.share(traced, ranks, sharing.DEVICES[device])
    if arguments.json:
        terminal.show_json(dataclasses.asdict(found))
    else:
        report.show_share(traced.graph.name, found)
    return 0


def user_inputs(arguments: InspectArguments | CloneArguments | VerifyArguments | RulesArguments) -> UserInputs:
    """The user's inputs: sizes, and arrays, which take precedence."""
    names = [name for name, _ in arguments.input]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise GraphcloneError(f"--input: {again} is given twice")
    if arguments.inputs is None:
        return dict(arguments.input)
    from graphclone.runtime.arrays import load_arrays

    return dict(arguments.input) | load_arrays(Path(arguments.inputs))


def _explain(traced: Traced, arguments: InspectArguments, why: str) -> int:
    explanations = inspection.explain(traced, why)
    if arguments.json:
        terminal.show_json([dataclasses.asdict(explanation) for explanation in explanations])
        return 0
    for explanation in explanations:
        terminal.show_text(report.explained(explanation))
    return 0


def verify(arguments: VerifyArguments) -> int:
    """Compare two ONNX files, or two checkpoints."""
    with terminal.progress("verifying"):
        verification = _compared(arguments)
    if arguments.json:
        terminal.show_json(verification.to_dict())
    else:
        terminal.show_text(str(verification))
    verification.raise_if_failed()
    return 0


def _compared(arguments: VerifyArguments) -> Report:
    from graphclone.formats.huggingface.verifier import verify_folders
    from graphclone.formats.onnx.file_verifier import verify_files

    texts, inputs = (arguments.source, arguments.clone), user_inputs(arguments)
    for text in texts:
        if not Path(text).exists():
            raise GraphcloneError(f"{text}: no such file or folder")
    sources = [resolve(text) if Path(text).is_dir() else None for text in texts]
    if all(isinstance(source, CheckpointSource) for source in sources):
        trusted = arguments.trust_remote_code
        return verify_folders(*texts, inputs=inputs, sample=arguments.sample, trust_remote_code=trusted)
    source, wide = map(_onnx, texts)
    if arguments.sample:
        raise GraphcloneError("--sample reads the weights of checkpoints; ONNX files are read whole: leave it out")
    return verify_files(source, wide, arguments.provider, inputs=inputs)


def _onnx(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise GraphcloneError(f"{text}: a folder; verify compares two .onnx files, or two folders of checkpoints")
    if path.suffix != ".onnx":
        raise GraphcloneError(f"{text}: verify compares .onnx files; write one with graphclone clone -o")
    return path


def list_passes(arguments: PassesArguments) -> int:
    """List the passes, plug-ins' included."""
    rows = [_pass_row(name, cls) for name, cls in available().items()]
    if arguments.json:
        terminal.show_json(rows)
    else:
        report.show_passes(rows)
        terminal.show_text(f"the default pipeline: {unparse(default_pipeline())}")
    return 0


def _pass_row(name: str, cls: type[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": (cls.__doc__ or "").strip().split("\n")[0],
        "options": defaults(cls),
        "requires": sorted(cls.requires),
        "ensures": sorted(cls.ensures),
    }


def list_rules(arguments: RulesArguments) -> int:
    """List the ops that have rules, or those of a model that have none."""
    if arguments.missing is not None:
        return _list_missing(arguments, arguments.missing)
    if user_inputs(arguments):
        raise GraphcloneError("--input and --inputs go with --missing, which names the model")
    families = {
        family.__name__.rpartition(".")[2]: {op: pattern_of(rule) for op, rule in sorted(family.RULES.items())}
        for family in FAMILIES
    }
    if arguments.json:
        terminal.show_json(families)
    else:
        report.show_rules(families)
    return 0


def _list_missing(arguments: RulesArguments, model: str) -> int:
    source = resolve(model, user_inputs(arguments))
    with terminal.progress(f"tracing {source.name}"):
        missing = inspection.missing_rules(source.trace())
    if arguments.json:
        terminal.show_json([dataclasses.asdict(row) for row in missing])
    else:
        report.show_missing(source.name, missing)
    return 0
