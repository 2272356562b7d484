"""The interface of every source of clones, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph
from graphclone.passes import analysis, default_pipeline
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.runner import Pass, Timing, run
from graphclone.pipeline.state import Request, State

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone


After = Callable[[Pass, State], None]
"""A callback that is told of every pass that has run, and of the state after it."""


def traced(graph: Graph, widen_io: Sequence[str]) -> Traced:
    """A graph with its dims found; patterns in ``widen_io`` name inputs and outputs that may grow."""
    state = State(graph, Request(widen_io=tuple(widen_io)))
    return Traced(state, run(analysis(), state))


def widened(
    graph: Graph, request: Request, passes: Sequence[Pass] | None, after: After | None
) -> tuple[State, Sequence[Timing]]:
    """Run a pipeline on a graph, the default one if none is given.

    Raises:
        GraphcloneError: the graph cannot be widened as asked.
    """
    if request.like is not None:
        raise GraphcloneError("the shape of a target is for Hugging Face checkpoints; give into= another instance")
    if request.omit:
        raise GraphcloneError("omit: what is left out is for Hugging Face checkpoints; a module keeps what it has")
    state = State(graph, request)
    return state, run(default_pipeline() if passes is None else passes, state, goal=CLONED, after=after)


class Source(Protocol):
    """A model to be widened, wherever it lies. Nothing of it is read before it is asked to do something."""

    suffixes: ClassVar[tuple[str, ...]]
    """The suffixes of what its clones can be written to; that of folders is empty."""

    @property
    def name(self) -> str:
        """The name by which the user knows the source."""
        ...

    def trace(self, widen_io: Sequence[str] = ()) -> Traced:
        """The model with its dims found, without its weights where that can be.

        Args:
            widen_io: patterns of names of inputs and outputs that may grow.

        Raises:
            GraphcloneError: it cannot be read or traced.
        """
        ...

    def clone(self, request: Request, *, passes: Sequence[Pass] | None = None, after: After | None = None) -> Clone:
        """The model widened; nothing is written.

        Args:
            request: what the user wants.
            passes: the pipeline, if not the default.
            after: told of every pass.

        Raises:
            GraphcloneError: it cannot be read, cannot be traced, or cannot grow as asked.
        """
        ...
