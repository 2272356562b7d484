"""The request that ``graphclone clone`` makes of a pipeline, and what it watches while that runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from graphclone import inspection
from graphclone.cli.arguments import CloneArguments
from graphclone.pipeline.printer import print_state
from graphclone.pipeline.requests import requested
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request, State


def request_of(arguments: CloneArguments) -> Request:
    """The request that a command line makes.

    Raises:
        GraphcloneError: there is no such strategy, or options do not go together.
    """
    return requested(
        widen=arguments.widen,
        sizes=arguments.size,
        depth=arguments.depth,
        new_blocks=arguments.new_blocks,
        new_from=arguments.new_from,
        like=arguments.like,
        keep_vocab=arguments.keep_vocab,
        omit=arguments.omit,
        widen_io=arguments.widen_io,
        strategy=arguments.strategy,
        snr_db=arguments.snr_db,
        seed=arguments.seed,
        untie=arguments.untie,
    )


def command_line(arguments: CloneArguments) -> str:
    """The command line that makes the clone again, without options that do not change what is written."""
    words = ["graphclone", "clone", arguments.model, "-o", arguments.output]
    for option, numbers in (
        ("--widen", arguments.widen),
        ("--size", arguments.size or None),
        ("--depth", arguments.depth),
    ):
        if isinstance(numbers, Mapping):
            words += [option, ",".join(f"{name}={number}" for name, number in numbers.items())]
        elif numbers is not None:
            words += [option, str(numbers)]
    words += ["--like", arguments.like] if arguments.like else []
    words += ["--keep-vocab"] if arguments.keep_vocab else []
    words += ["--omit", ",".join(arguments.omit)] if arguments.omit else []
    if arguments.depth is not None or arguments.like:
        words += ["--new-blocks", arguments.new_blocks, "--new-from", arguments.new_from]
    words += ["--strategy", arguments.strategy, "--seed", str(arguments.seed)]
    words += ["--widen-io", ",".join(arguments.widen_io)] if arguments.widen_io else []
    words += ["--snr-db", repr(arguments.snr_db)] if arguments.snr_db is not None else []
    words += ["--dtype", arguments.dtype] if arguments.dtype else []
    words += ["--inputs", arguments.inputs] if arguments.inputs else []
    for name, sizes in arguments.input:
        words += ["--input", f"{name}={'x'.join(map(str, sizes))}"]
    words += ["--max-shard-size", str(arguments.max_shard_size)] if arguments.max_shard_size else []
    words += ["--format", arguments.format] if arguments.format else []
    words += ["--optimizer", arguments.optimizer] if arguments.optimizer else []
    words += ["--trust-remote-code"] if arguments.trust_remote_code else []
    words += ["--untie"] if arguments.untie else []
    words += ["--passes", arguments.passes] if arguments.passes else []
    words += ["--weights", arguments.weights] if arguments.weights else []
    return shlex.join(words)


class Watch:
    """Looks at the graph after every pass.

    Attributes:
        graphs: the text of the graph after each pass that ``--print-after`` names.
    """

    def __init__(self, arguments: CloneArguments) -> None:
        self._arguments = arguments
        self.graphs: dict[str, str] = {}

    def __call__(self, step: Pass, state: State) -> None:
        """See to it that what is asked for by name can grow, and print what is to be printed.

        Raises:
            GraphcloneError: it cannot.
        """
        if "dims" in step.ensures:
            inspection.refuse_pinned(state, state.request)
        if step.name in self._arguments.print_after:
            self.graphs[step.name] = print_state(state)
