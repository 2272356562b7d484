"""The grammar of the command line, and what a command is called with."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NoReturn

from graphclone.algebra.depths import PLACES, STARTS, Depths, Start, Where
from graphclone.algebra.factors import Widen, fraction
from graphclone.errors import GraphcloneError
from graphclone.runtime.ranks import rank_of_environment
from graphclone.version import __version__

_REFUSED = 2
"""The exit code of wrong usage."""

_DTYPES = ("float64", "float32", "float16", "bfloat16")

_EPILOG = """
MODEL is a name in models/ (a wrong one lists them), package.module:function or path/to/file.py:function that
returns (module, args) or (module, args, kwargs), or a Hugging Face checkpoint: its folder, or its hub id.
"""

InputSizes = Sequence[tuple[str, tuple[int, ...]]]
"""Inputs by name, with the sizes that they have."""


@dataclass(frozen=True)
class Arguments:
    """What every command is called with.

    Attributes:
        json: print for machines.
        no_cache: neither read nor keep what runs find out on disk.
        debug: show the traceback of an error, and warnings.
    """

    json: bool
    no_cache: bool
    debug: bool


@dataclass(frozen=True)
class InspectArguments(Arguments):
    """The arguments of ``graphclone inspect``; see its help."""

    model: str
    all: bool
    why: str | None
    like: str | None
    keep_vocab: bool
    widen_io: tuple[str, ...]
    input: InputSizes
    inputs: str | None
    ranks: int | None
    devices: str
    html: str | None
    node_data: str | None


@dataclass(frozen=True)
class CloneArguments(Arguments):
    """The arguments of ``graphclone clone``; see its help."""

    model: str
    output: str
    widen: Widen | None
    size: Mapping[str, int]
    depth: Depths | None
    new_blocks: Where
    new_from: Start
    like: str | None
    keep_vocab: bool
    widen_io: tuple[str, ...]
    strategy: str
    snr_db: float | None
    seed: int
    untie: bool
    passes: str | None
    print_after: Sequence[str]
    timing: bool
    force: bool
    no_verify: bool
    verify: Literal["sample"] | None
    dry_run: bool
    provider: Literal["auto", "cpu", "cuda"]
    input: InputSizes
    inputs: str | None
    dtype: str | None
    max_shard_size: int | None
    optimizer: str | None
    resume: bool
    trust_remote_code: bool
    format: Literal["dcp"] | None
    weights: str | None
    html: str | None


@dataclass(frozen=True)
class VerifyArguments(Arguments):
    """The arguments of ``graphclone verify``; see its help."""

    source: str
    clone: str
    provider: Literal["auto", "cpu", "cuda"]
    input: InputSizes
    inputs: str | None


@dataclass(frozen=True)
class StudyArguments(Arguments):
    """The arguments of ``graphclone study``; see its help."""

    study: str
    output: str | None
    recipe: str | None
    jobs: int


@dataclass(frozen=True)
class PassesArguments(Arguments):
    """The arguments of ``graphclone passes``; see its help."""


@dataclass(frozen=True)
class RulesArguments(Arguments):
    """The arguments of ``graphclone rules``; see its help."""

    missing: str | None
    input: InputSizes
    inputs: str | None


def parsed(argv: Sequence[str] | None = None) -> Arguments:
    """The arguments of a command line; those of the process by default. It exits where they are wrong."""
    values = vars(parser().parse_args(argv))
    kind: type[Arguments] = values["kind"]
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if rank_of_environment():  # the first of several processes says it
            self.exit(_REFUSED)
        self.exit(_REFUSED, f"graphclone: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = _Parser(prog="graphclone", description="Make trained networks bigger without changing what they do.")
    top.add_argument("--version", action="version", version=f"graphclone {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _inspect_arguments(_command(commands, "inspect", "what can grow, what holds the rest, what it costs"))
    _clone_arguments(_command(commands, "clone", "write a wider model that computes the same"))
    _verify_arguments(_command(commands, "verify", "run two ONNX files or checkpoints and compare what they compute"))
    _study_arguments(_command(commands, "study", "train clones and a random model alike, and compare them"))
    _command(commands, "passes", "list the passes").set_defaults(kind=PassesArguments)
    rules = _command(commands, "rules", "list the operators that have rules")
    rules.add_argument("--missing", metavar="MODEL", help="list the operators of a model that have none")
    _inputs_arguments(rules)
    rules.set_defaults(kind=RulesArguments)
    return top


def _command(commands: argparse._SubParsersAction[_Parser], name: str, summary: str) -> _Parser:
    command = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
    command.add_argument("--json", action="store_true", help="print JSON, for machines")
    command.add_argument("--no-cache", action="store_true", help="neither read nor keep what runs find out on disk")
    command.add_argument("--debug", action="store_true", help="show the traceback of an error, and warnings")
    return command


def _inspect_arguments(command: _Parser) -> None:
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--all", action="store_true", help="show also what can never grow")
    command.add_argument("--why", metavar="DIM", help="what one dim touches, and which way its pin came")
    command.add_argument("--ranks", type=_count, metavar="N", help="what each of N processes does to double the model")
    command.add_argument("--devices", default="H100", metavar="NAME", help="of the processes; H100 by default")
    command.add_argument("--html", metavar="FILE", help="write a page to look at, one file that needs nothing else")
    command.add_argument("--node-data", metavar="FILE", help="write the dims for Model Explorer, as .json")
    _like_arguments(command)
    _widen_io_argument(command)
    _inputs_arguments(command)
    command.set_defaults(kind=InspectArguments)


def _clone_arguments(command: _Parser) -> None:
    command.add_argument("model", metavar="MODEL")
    command.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=".onnx, .pt2 or .safetensors, or a folder for a checkpoint"
    )
    command.add_argument(
        "--widen", type=widths, metavar="N", help="2 (the default), 1.5 or 4/3, or hidden=4/3,layers.*.mlp=2"
    )
    command.add_argument(
        "--size", type=sizes, default={}, metavar="NAME=N,..", help="new sizes, such as hidden=960,layers.*.mlp=2560"
    )
    command.add_argument("--depth", type=depth, metavar="N", help="how many blocks, or encoder=8,decoder=8")
    command.add_argument("--new-blocks", choices=PLACES, default="spread", help="where new blocks go; spread evenly")
    command.add_argument(
        "--new-from", choices=STARTS, default="copy", help="what they start from; a copy of the block before"
    )
    _like_arguments(command)
    _widen_io_argument(command)
    command.add_argument(
        "--strategy", default="symmetric", help="symmetric, diagonal, noisy- before either, or fresh: no copies"
    )
    command.add_argument("--snr-db", type=float, metavar="DB", help="signal-to-noise ratio of a noisy strategy")
    command.add_argument("--seed", type=int, default=0, help="of the noise")
    command.add_argument("--untie", action="store_true", help="give every use of a tied weight its own copy")
    command.add_argument("--passes", metavar="TEXT", help="another pipeline: canonicalize,infer-dims,..")
    command.add_argument(
        "--print-after", action="append", default=[], metavar="PASS", help="print the graph after a pass"
    )
    command.add_argument("--timing", action="store_true", help="print how long each pass took")
    command.add_argument("--force", action="store_true", help="overwrite OUT")
    command.add_argument("--no-verify", action="store_true", help="write without checking")
    command.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    command.add_argument("--html", metavar="FILE", help="write a page about the clone beside it, with its verification")
    command.add_argument("--format", choices=("dcp",), help="write a folder for torch.distributed.checkpoint")
    command.add_argument("--weights", metavar="DIR", help="such a folder, of the module that a function returns")
    _provider_argument(command)
    _inputs_arguments(command)
    _checkpoint_arguments(command)
    command.set_defaults(kind=CloneArguments)


def _like_arguments(command: _Parser) -> None:
    only = command.add_argument_group("when a Hugging Face checkpoint takes the shape of another")
    only.add_argument(
        "--like",
        metavar="TARGET",
        help="a config.json, a folder with one, or a hub id; no weights are read",
    )
    only.add_argument("--keep-vocab", action="store_true", help="keep the vocabulary where TARGET has another")


def _checkpoint_arguments(command: _Parser) -> None:
    only = command.add_argument_group("when a Hugging Face checkpoint becomes another")
    only.add_argument("--dtype", choices=_DTYPES, help="of the clone's weights, if not that of the source's")
    only.add_argument("--max-shard-size", type=size, metavar="SIZE", help="of a file of weights; 5GB by default")
    only.add_argument("--verify", choices=("sample",), help="run one input, and read weights part by part")
    only.add_argument("--optimizer", metavar="FILE", help="optimizer.pt or .bin of its training, to be grown as well")
    only.add_argument("--resume", action="store_true", help="go on from the finished files of a run that was stopped")
    only.add_argument("--trust-remote-code", action="store_true", help="let code that comes with the checkpoint run")


def _verify_arguments(command: _Parser) -> None:
    command.add_argument("source", metavar="SOURCE", help="an .onnx file, or the folder of a checkpoint")
    command.add_argument("clone", metavar="CLONE", help="another of the same kind")
    _provider_argument(command)
    _inputs_arguments(command)
    command.set_defaults(kind=VerifyArguments)


def _study_arguments(command: _Parser) -> None:
    command.add_argument("study", metavar="RUN.toml", help="a study, or the name of one that comes with graphclone")
    command.add_argument("-o", "--output", metavar="FOLDER", help="of its runs; study-NAME by default")
    command.add_argument(
        "--recipe", metavar="NAME", help="what to compare with random weights where RUN.toml does not say"
    )
    command.add_argument("--jobs", type=_count, default=1, metavar="N", help="runs at a time")
    command.set_defaults(kind=StudyArguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _provider_argument(command: _Parser) -> None:
    choices = ("auto", "cpu", "cuda")
    command.add_argument("--provider", choices=choices, default="auto", help="what ONNX Runtime runs on")


def _inputs_arguments(command: _Parser) -> None:
    only = command.add_argument_group("when what an .onnx file or a checkpoint is fed is not found by itself")
    only.add_argument(
        "--input", action="append", type=shape, default=[], metavar="NAME=SHAPE", help="such as x=1x3x64x64"
    )
    only.add_argument("--inputs", metavar="FILE.npz", help="arrays, by the names of inputs")


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name of an input, and its sizes; none for a scalar.

    Raises:
        ArgumentTypeError: it is not written so.
    """
    name, equals, sizes = text.rpartition("=")
    if not equals or not name or not re.fullmatch(r"(\d+(x\d+)*)?", sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SHAPE, such as x=1x3x64x64")
    return name, tuple(int(size) for size in sizes.split("x") if size)


def _widen_io_argument(command: _Parser) -> None:
    command.add_argument(
        "--widen-io",
        type=_patterns,
        default=(),
        metavar="PATTERN,..",
        help="inputs and outputs that may grow too",
    )


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def widths(text: str) -> Widen:
    """A factor, or factors by the names of dims.

    Raises:
        ArgumentTypeError: it is neither.
    """
    return _factor(text, text) if "=" not in text else {name: _factor(n, f"{name}={n}") for name, n in _by_name(text)}


def sizes(text: str) -> Mapping[str, int]:
    """Sizes by the names of dims.

    Raises:
        ArgumentTypeError: one is no whole number.
    """
    for name, number in _by_name(text):
        if not number.isdecimal():
            raise argparse.ArgumentTypeError(f"'{name}={number}': a size is a whole number")
    return {name: int(number) for name, number in _by_name(text)}


def depth(text: str) -> Depths:
    """A number of blocks, or numbers by the names of stacks.

    Raises:
        ArgumentTypeError: one is no whole number.
    """
    items = [("", text)] if "=" not in text else list(_by_name(text))
    for _, number in items:
        if not number.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r}: a depth is a whole number of blocks")
    return int(text) if "=" not in text else {name: int(number) for name, number in items}


def _by_name(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split(","):
        name, equals, number = item.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"{item!r} is not NAME=NUMBER")
        yield name.strip(), number.strip()


def size(text: str) -> int:
    """A number of bytes: 500MB, 5GB or 5000000.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    count = int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500MB or 5GB")
    return count


def _factor(text: str, where: str) -> Fraction:
    try:
        return fraction(text, where)
    except GraphcloneError as error:
        raise argparse.ArgumentTypeError(f"{where!r}: {str(error).partition(': ')[2]}") from None
