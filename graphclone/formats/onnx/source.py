"""An ONNX file as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graphclone.clones.clone import Clone
from graphclone.clones.source import After, traced, widened
from graphclone.clones.traced import Traced
from graphclone.formats.onnx.format import onnx_format
from graphclone.formats.onnx.reader import read_graph
from graphclone.graph.ir import Graph
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request
from graphclone.runtime import collector

if TYPE_CHECKING:
    from graphclone.formats.onnx.drawn_inputs import UserInputs


@dataclass(frozen=True)
class OnnxSource:
    """A model in an ONNX file.

    Attributes:
        path: of the file.
        inputs: arrays, or sizes, that it accepts, by name.
        title: what it is called, if not by its path.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".safetensors")

    path: Path
    inputs: UserInputs = field(default_factory=dict)
    title: str | None = None

    @property
    def name(self) -> str:
        return self.title or str(self.path)

    @property
    def _graph(self) -> Graph:
        shapes: dict[str, Any] = {port: getattr(item, "shape", item) for port, item in self.inputs.items()}
        return read_graph(self.path, name=self.title, shapes=shapes)

    @collector.seldom()
    def trace(self, widen_io: Sequence[str] = ()) -> Traced:
        """The model as it is read from the file, where its weights stay; see ``Source.trace``."""
        return traced(self._graph, widen_io)

    @collector.seldom()
    def clone(self, request: Request, *, passes: Sequence[Pass] | None = None, after: After | None = None) -> Clone:
        """The model widened; see ``Source.clone``."""
        return Clone(*widened(self._graph, request, passes, after), onnx_format(self.inputs))
