"""A Hugging Face checkpoint as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from graphclone.clones.clone import Clone
from graphclone.clones.source import After, traced
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.format import checkpoint_format
from graphclone.formats.huggingface.likeness import Reach, reach
from graphclone.formats.huggingface.plan import Plan, plan
from graphclone.formats.huggingface.reader import Checkpoint, free_inner_outputs, open_checkpoint, quiet_transformers
from graphclone.formats.huggingface.traces import Traces, computed_tables
from graphclone.formats.torch.source import FunctionSource
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request
from graphclone.runtime.exclusive import exclusive

if TYPE_CHECKING:
    from graphclone.formats.onnx.drawn_inputs import UserInputs


@dataclass(frozen=True)
class Planned:
    """The clone of a checkpoint.

    Attributes:
        clone: the clone. Nothing of it is computed yet.
        plan: what has been decided about it.
    """

    clone: Clone
    plan: Plan


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint, by its folder or hub id.

    Attributes:
        name: the folder or the hub id.
        inputs: what the user says about its inputs, by name: tensors, arrays, or sizes that values are drawn for.
        dtype: that its weights are read in, if not that of the files.
        trust_remote_code: let code that comes with the checkpoint run.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("",)

    name: str
    inputs: UserInputs = field(default_factory=dict)
    dtype: torch.dtype | None = None
    trust_remote_code: bool = False

    def open(self, *, weightless: bool = False) -> Checkpoint:
        """The checkpoint. Only its configuration is read.

        Args:
            weightless: whether its weights may be missing.

        Raises:
            GraphcloneError: there is none, or it is of a kind that cannot be read.
        """
        return open_checkpoint(
            self.name,
            trust_remote_code=self.trust_remote_code,
            inputs=self.inputs,
            dtype=self.dtype,
            weightless=weightless,
        )

    def in_memory(self) -> FunctionSource:
        """The model that its class makes of it, for outputs that are no checkpoints."""

        def make() -> tuple[Any, tuple[()], dict[str, Any]]:
            checkpoint = self.open()
            with quiet_transformers():
                module = checkpoint.cls.from_pretrained(checkpoint.folder, dtype=checkpoint.dtype)
            return module, (), checkpoint.example_inputs

        return FunctionSource(self.name, make)

    @exclusive()
    def trace(self, widen_io: Sequence[str] = ()) -> Traced:
        """The model traced without its weights, which need not be there; see ``Source.trace``."""
        checkpoint = self.open(weightless=True)
        graph = checkpoint.traced(checkpoint.fields, self.name)
        free_inner_outputs(graph)
        model = traced(graph, widen_io)
        graph.notes += [*_held_by_tables(model), *checkpoint.notes]
        return model

    @exclusive()
    def reach(self, like: str, *, keep_vocab: bool = False) -> Reach:
        """Find how far the model can grow towards a published shape. Its weights are not read.

        Args:
            like: a config.json, a folder with one, or a hub id.
            keep_vocab: keep the source's vocabulary where the target has another.

        Raises:
            GraphcloneError: there is no such target, it is for another kind of model, or the source cannot be read.
        """
        checkpoint = self.open(weightless=True)
        source = checkpoint.traced(checkpoint.fields, self.name)
        free_inner_outputs(source)
        return reach(Traces(checkpoint), source, Request(like=like, keep_vocab=keep_vocab))

    def clone(self, request: Request, *, passes: Sequence[Pass] | None = None, after: After | None = None) -> Clone:
        """The checkpoint widened, to be written as a folder; see ``Source.clone``."""
        if passes is not None:
            raise GraphcloneError(f"{self.name}: a checkpoint, whose code stays as it is, takes no passes of yours")
        return self.planned(request, after=after).clone

    def planned(self, request: Request, *, after: After | None = None) -> Planned:
        """The checkpoint widened, and what has been decided about that; see ``clone``."""
        made = plan(self.open(), request, after=after)
        clone = Clone(made.widened.state, made.widened.timings, checkpoint_format(made))
        clone.graph.notes += made.notes
        return Planned(clone, made)


def _held_by_tables(traced: Traced) -> Iterator[str]:
    """The dims that grow by name in some classes only, as their code computes a table of their size."""
    tables = computed_tables(traced.state)
    for group in traced.dims:
        dim = group.dims[0]
        if dim.pin is None and not dim.default and dim.axis in tables:
            table = tables[dim.axis]
            yield f"{group.name} grows in a checkpoint only where its class finds the numbers of {table} again"
