"""What ``graphclone clone`` asks of a pipeline, and what it watches while that runs."""

from __future__ import annotations

from graphclone import inspection
from graphclone.algebra.strategies import strategy
from graphclone.cli.arguments import CloneArguments
from graphclone.errors import GraphcloneError
from graphclone.pipeline.printer import print_state
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request, State


def request_of(arguments: CloneArguments) -> Request:
    """The request that a command line makes.

    Raises:
        GraphcloneError: there is no such strategy, or options do not go together.
    """
    if arguments.like is None and arguments.keep_vocab:
        raise GraphcloneError("--keep-vocab goes with --like, whose target may have another vocabulary")
    if arguments.like is not None and (arguments.widen is not None or arguments.size or arguments.depth is not None):
        raise GraphcloneError("--like says every width and depth: leave --widen, --size and --depth out")
    return Request(
        arguments.widen,
        arguments.widen_io,
        strategy(arguments.strategy, arguments.snr_db),
        arguments.seed,
        arguments.untie,
        sizes=arguments.size,
        depth=arguments.depth,
        new_blocks=arguments.new_blocks,
        new_from=arguments.new_from,
        like=arguments.like,
        keep_vocab=arguments.keep_vocab,
    )


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
