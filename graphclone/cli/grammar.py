"""The grammar of the command line, and its help."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from graphclone.algebra.depths import PLACES, STARTS
from graphclone.cli.arguments import (
    Arguments,
    CloneArguments,
    InspectArguments,
    PassesArguments,
    RulesArguments,
    ScoreArguments,
    StudyArguments,
    VerifyArguments,
)
from graphclone.cli.completion import SHELLS, completion
from graphclone.cli.values import count, depth, patterns, shape, size, sizes, widths
from graphclone.runtime.ranks import rank_of_environment
from graphclone.version import __version__

_DONE, _REFUSED = 0, 2
"""Exit codes, of a command line that asks for nothing and of one that is wrong."""

_DTYPES = ("float64", "float32", "float16", "bfloat16")

_START = """
Three things to try:

  graphclone inspect MODEL                  what can grow, and what it costs
  graphclone clone MODEL -o wide.onnx       make it twice as wide
  graphclone study mini                     train a clone, and see what it gains

MODEL is an .onnx file, the folder or hub id of a checkpoint, file.py:function,
or the name of a model that comes with graphclone. A wrong name lists these.

To complete commands and options with the TAB key, in this session of a shell:

  eval "$(graphclone --completion bash)"
"""

_MODEL = (
    "an .onnx file, the folder or the hub id of a Hugging Face checkpoint, path/to/file.py:function or "
    "package.module:function, or the name of a model that comes with graphclone"
)

_MODEL_MORE = """
A function returns (module, args) or (module, args, kwargs).
A wrong name lists the models that come with graphclone.
"""


def parsed(argv: Sequence[str] | None = None) -> Arguments:
    """The arguments of a command line; those of the process by default. It exits where they are wrong."""
    given = sys.argv[1:] if argv is None else argv
    grammar = parser()
    if not given:
        grammar.exit(_DONE, grammar.format_help())
    for word in given:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            grammar.error(f"{word!r} is no UTF-8: ONNX Runtime opens no file of such a name; rename it")
    values = vars(grammar.parse_args(given))
    kind: type[Arguments] = values["kind"]
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)

    def exit(self, status: int = _DONE, message: str | None = None) -> NoReturn:
        if message:
            print(message, end="", file=sys.stderr if status else sys.stdout)
        sys.exit(status)

    def error(self, message: str) -> NoReturn:
        if rank_of_environment():  # the first of several processes says it
            self.exit(_REFUSED)
        self.exit(_REFUSED, f"graphclone: {message}; see {self.prog} --help\n")


class _Once(argparse.Action):
    """Store a value. An option that is given twice has one value too many."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        given: set[str] = vars(namespace).setdefault("given", set())
        if option and self.dest in given:
            parser.error(f"argument {option}: is given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class _PrintCompletion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: object,  # noqa: ARG002
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        parser.exit(_DONE, f"{completion(parser, str(values))}\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    about = "Make trained networks bigger without changing what they do."
    top = _Parser(prog="graphclone", description=about, epilog=_START)
    top.add_argument("--version", action="version", version=f"graphclone {__version__}")
    top.add_argument(
        "--completion",
        action=_PrintCompletion,
        choices=SHELLS,
        help="print a script that lets a shell complete commands, options and paths",
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _inspect_arguments(
        _command(commands, "inspect", "show what can grow, what keeps the rest from growing, and what growth costs")
    )
    clone = _command(commands, "clone", "write a bigger model that computes the same")
    clone.usage = "graphclone clone MODEL -o OUT [options]"
    _clone_arguments(clone)
    _verify_arguments(_command(commands, "verify", "run two ONNX files or checkpoints and compare what they compute"))
    _study_arguments(_command(commands, "study", "train clones and a random model alike, and compare them"))
    _score_arguments(_command(commands, "score", "score checkpoints on downstream tasks of your own"))
    _command(commands, "passes", "list the passes").set_defaults(kind=PassesArguments)
    _rules_arguments(_command(commands, "rules", "list the operators that have rules"))
    return top


def _command(commands: argparse._SubParsersAction[_Parser], name: str, summary: str) -> _Parser:
    about = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=about, epilog=_EXAMPLES[name])
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--no-cache", action="store_true", help="read no results of earlier runs from disk, and keep none"
    )
    command.add_argument("--debug", action="store_true", help="print the traceback of an error, and all warnings")
    return command


_EXAMPLES = {
    "inspect": f"""
examples:
  graphclone inspect model.onnx             what can grow, and what it costs
  graphclone inspect ./folder --why hidden  what hidden touches, what pins it
  graphclone inspect ./small --like ./large/config.json
{_MODEL_MORE}""",
    "clone": f"""
examples:
  graphclone clone model.onnx -o wide.onnx --widen 2
  graphclone clone model.py:make -o wide.pt2 --widen 'hidden=2,layers.*.mlp=4'
  graphclone clone ./folder -o ./wide --size hidden=960 --depth 18
  graphclone clone ./small -o ./grown --like ./large/config.json
{_MODEL_MORE}""",
    "verify": """
examples:
  graphclone verify source.onnx wide.onnx
  graphclone verify ./folder ./wide --sample
""",
    "study": """
examples:
  graphclone study mini                      two minutes, on this machine
  graphclone study RUN.toml -o runs --jobs 2
""",
    "score": """
examples:
  graphclone score ./folder ./wide --tasks ./tasks

a task, tasks/sums.yaml:
  task: sums
  dataset_path: json
  dataset_kwargs: {data_files: {test: tasks/sums.jsonl}}
  test_split: test
  output_type: multiple_choice
  doc_to_text: "{{question}}"
  doc_to_choice: choices
  doc_to_target: answer
  metric_list: [{metric: acc}]

a line of tasks/sums.jsonl:
  {"question": "2+3=", "choices": ["5", "6"], "answer": 0}
""",
    "passes": None,
    "rules": """
examples:
  graphclone rules --missing model.onnx
""",
}


def _inspect_arguments(command: _Parser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("--all", action="store_true", help="also show what can never grow")
    command.add_argument(
        "--why", metavar="DIM", help="show what a dim touches, what pins it, and the path between (for example hidden)"
    )
    command.add_argument(
        "--ranks",
        type=count,
        metavar="N",
        help="show what each of N processes reads, writes and holds if the model is made twice as wide (for example 8)",
    )
    command.add_argument(
        "--devices",
        metavar="NAME",
        help="the GPU of each of the N processes: A100, H100, H200 or B200 (default: H100)",
    )
    command.add_argument("--html", metavar="FILE", help="write a page to look at in a browser (for example page.html)")
    command.add_argument(
        "--node-data", metavar="FILE", help="write the dims in a file that Model Explorer reads (for example dims.json)"
    )
    _like_arguments(command)
    _widen_io_argument(command)
    _trust_argument(command)
    _inputs_arguments(command)
    command.set_defaults(kind=InspectArguments)


def _clone_arguments(command: _Parser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="what to write: .onnx, .pt2 or .safetensors, or a folder for a checkpoint",
    )
    _size_arguments(command.add_argument_group("how big"))
    _like_arguments(command)
    _start_arguments(command.add_argument_group("how new weights begin"))
    _check_arguments(command.add_argument_group("what is checked"))
    _writing_arguments(command.add_argument_group("what is written"))
    _inputs_arguments(command)
    _checkpoint_arguments(command)
    _pass_arguments(command.add_argument_group("the passes"))
    command.set_defaults(kind=CloneArguments)


def _size_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--widen",
        type=widths,
        metavar="N",
        help="a factor, or factors by name (for example 4/3, or 'hidden=4/3,layers.*.mlp=2'; default: 2)",
    )
    group.add_argument(
        "--size",
        type=sizes,
        default={},
        metavar="NAME=N,..",
        help="sizes by name (for example 'hidden=960,layers.*.mlp=2560')",
    )
    group.add_argument(
        "--depth",
        type=depth,
        metavar="N",
        help="how many blocks (for example 32, or encoder=8,decoder=8; default: as many as there are)",
    )
    group.add_argument("--new-blocks", choices=PLACES, default="spread", help="where new blocks go (default: spread)")
    _widen_io_argument(group)
    group.add_argument(
        "--untie", action="store_true", help="where a weight is used several times, give each use its own copy"
    )


def _start_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--strategy",
        default="symmetric",
        metavar="NAME",
        help="how copies share a weight: symmetric, diagonal, noisy-symmetric, noisy-diagonal, net2net, low-rank, "
        "mup-noise, staged, blend, circulant, lemon, orthogonal; or fresh, which makes no copies. Two take a number "
        "(for example blend:0.3 and circulant:0.8; default: symmetric)",
    )
    group.add_argument(
        "--snr-db",
        type=float,
        metavar="DB",
        help="signal-to-noise ratio of a noisy strategy, in decibels (for example 20; default: 10)",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the random numbers (for example 1; default: 0)"
    )
    group.add_argument(
        "--new-from",
        choices=STARTS,
        default="copy",
        help="what a new block holds: a copy of the block before it, or random weights (default: copy)",
    )


def _check_arguments(group: argparse._ArgumentGroup) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument("--no-verify", action="store_true", help="write the clone without checking it")
    either.add_argument(
        "--verify",
        choices=("sample",),
        help="how to check a checkpoint that does not fit into memory: sample runs one input, and reads the "
        "weights of one part of the model at a time",
    )
    _provider_argument(group)


def _writing_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dry-run", action="store_true", help="show what would be written, and write nothing")
    group.add_argument("--force", action="store_true", help="replace OUT if it exists")
    group.add_argument(
        "--html", metavar="FILE", help="write a page about the clone, to look at in a browser (for example page.html)"
    )
    group.add_argument(
        "--format",
        choices=("dcp",),
        help="dcp writes a folder for torch.distributed.checkpoint (default: the suffix of OUT says the format)",
    )
    group.add_argument(
        "--weights",
        metavar="DIR",
        help="a folder of torch.distributed.checkpoint with the weights of a module that a function returns "
        "(for example ./weights)",
    )


def _pass_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--passes",
        metavar="TEXT",
        help="run these passes in place of the default ones (for example canonicalize,infer-dims,..; the command "
        "`graphclone passes` lists all)",
    )
    group.add_argument(
        "--print-after",
        action="append",
        default=[],
        metavar="PASS",
        help="print the graph after a pass (for example infer-dims)",
    )
    group.add_argument("--timing", action="store_true", help="print how long each pass took")


def _like_arguments(command: _Parser) -> None:
    only = command.add_argument_group("a checkpoint into the shape of another")
    only.add_argument(
        "--like", metavar="TARGET", help="a config.json, a folder with one, or a hub id; its weights are not read"
    )
    only.add_argument(
        "--keep-vocab", action="store_true", help="keep the source's vocabulary if TARGET has another one"
    )


def _checkpoint_arguments(command: _Parser) -> None:
    only = command.add_argument_group("a checkpoint into another")
    only.add_argument("--dtype", choices=_DTYPES, help="number format of the clone's weights (default: the source's)")
    only.add_argument(
        "--max-shard-size",
        type=size,
        metavar="SIZE",
        help="the largest size of one file of weights (for example 500MB; default: 5GB)",
    )
    only.add_argument(
        "--omit",
        type=patterns,
        default=(),
        metavar="PART,..",
        help="leave out these parts, which no example input reaches (for example esm.contact_head)",
    )
    only.add_argument(
        "--optimizer",
        metavar="FILE",
        help="also grow the state of an optimizer (for example optimizer.pt, a .bin file or a DCP folder)",
    )
    only.add_argument(
        "--resume", action="store_true", help="continue a run that was stopped, from the files that it finished"
    )
    _trust_argument(only)


def _trust_argument(command: _Parser | argparse._ArgumentGroup) -> None:
    command.add_argument(
        "--trust-remote-code", action="store_true", help="allow code that comes with the checkpoint to run"
    )


def _verify_arguments(command: _Parser) -> None:
    command.add_argument("source", metavar="SOURCE", help="an .onnx file, or the folder of a checkpoint")
    command.add_argument("clone", metavar="CLONE", help="another of the same kind")
    command.add_argument(
        "--sample",
        action="store_true",
        help="for checkpoints that do not fit into memory: run one input, and read the weights of one part "
        "of the model at a time",
    )
    _provider_argument(command)
    _trust_argument(command)
    _inputs_arguments(command)
    command.set_defaults(kind=VerifyArguments)


def _study_arguments(command: _Parser) -> None:
    command.add_argument("study", metavar="RUN.toml", help="a study, or the name of one that comes with graphclone")
    command.add_argument(
        "-o", "--output", metavar="FOLDER", help="the folder for its runs (for example ./runs; default: study-NAME)"
    )
    command.add_argument(
        "--html", metavar="FILE", help="also write a page with curves, to look at in a browser (for example page.html)"
    )
    command.add_argument(
        "--recipe",
        metavar="NAME",
        help="how the clones begin, if RUN.toml does not say it (for example symmetric; "
        "default: the recommended recipe)",
    )
    command.add_argument(
        "--jobs",
        type=count,
        default=1,
        metavar="N",
        help="how many runs train at the same time (for example 2; default: 1)",
    )
    command.set_defaults(kind=StudyArguments)


def _score_arguments(command: _Parser) -> None:
    command.add_argument("checkpoint", nargs="+", metavar="DIR", help="the folder of a checkpoint with its tokenizer")
    command.add_argument(
        "--tasks",
        required=True,
        metavar="FOLDER",
        help="a folder of tasks for lm-evaluation-harness, each in a .yaml file with the name of the task "
        "(for example ./tasks)",
    )
    command.set_defaults(kind=ScoreArguments)


def _rules_arguments(command: _Parser) -> None:
    command.add_argument(
        "--missing", metavar="MODEL", help="list the operators of a model that have no rule (for example model.onnx)"
    )
    _inputs_arguments(command)
    command.set_defaults(kind=RulesArguments)


def _provider_argument(command: _Parser | argparse._ArgumentGroup) -> None:
    choices = ("auto", "cpu", "cuda")
    command.add_argument(
        "--provider",
        choices=choices,
        default="auto",
        help="what ONNX Runtime runs on (default: a GPU if there is one)",
    )


def _inputs_arguments(command: _Parser) -> None:
    only = command.add_argument_group("example inputs, if graphclone finds none or not the right ones")
    only.add_argument(
        "--input",
        action="append",
        type=shape,
        default=[],
        metavar="NAME=SHAPE",
        help="draw random values of this shape for an input (for example x=1x3x64x64)",
    )
    only.add_argument(
        "--inputs",
        metavar="FILE.npz",
        help="take arrays from a file, each under the name of an input (for example inputs.npz)",
    )


def _widen_io_argument(command: _Parser | argparse._ArgumentGroup) -> None:
    command.add_argument(
        "--widen-io",
        type=patterns,
        default=(),
        metavar="PATTERN,..",
        help="let these inputs and outputs grow as well (for example 'past*,present*')",
    )
