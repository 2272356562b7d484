"""Graph modules whose own tensors follow when the module is moved to another device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate

from graphclone.formats.torch.uncast import moved_region


class MovableGraphModule(torch.fx.GraphModule):
    """A graph module that makes tensors, such as positions, where its weights are.

    A trace writes down the device of every tensor that the code makes. ``module.to(device)`` moves weights only; see
    ``torch.export.passes.move_to_device_pass``, which does this to programs.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MovableGraphModule:
        before = _only_device(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        after = _only_device(self)
        if before is not None and after is not None and before != after:
            for module in self.modules():
                if isinstance(module, torch.fx.GraphModule):
                    _replace(module, before, after)
        return self


def _only_device(module: torch.nn.Module) -> torch.device | None:
    """Where all of a module's tensors are; None where they are in several places, or there are none."""
    devices = {tensor.device for tensors in (module.parameters(), module.buffers()) for tensor in tensors}
    return devices.pop() if len(devices) == 1 else None


def _replace(module: torch.fx.GraphModule, before: torch.device, after: torch.device) -> None:
    def moved(argument: Any) -> Any:
        same = isinstance(argument, torch.device) and argument.type == before.type
        return after if same else argument

    for node in module.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, moved), map_aggregate(node.kwargs, moved)
        moved_region(node, before, after)
    module.recompile()
