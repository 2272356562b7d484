"""Regions in which autocast is turned off: what they compute stays in its precision, whatever surrounds the call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast


@dataclass(frozen=True)
class Uncast:
    """A region without autocast.

    Attributes:
        device: the type of the devices that it is turned off for.
    """

    device: str


class Regions:
    """Lets the calls that are added to a graph run in their regions.

    Args:
        fx_graph: to which calls are added one after the other.
    """

    def __init__(self, fx_graph: torch.fx.Graph) -> None:
        self.fx_graph = fx_graph
        self.current: Uncast | None = None
        self._entered: torch.fx.Node | None = None

    def enter(self, region: Uncast | None) -> None:
        """Let what is added next run in a region, or in none."""
        if region == self.current:
            return
        if self._entered is not None:
            self.fx_graph.call_function(_exit_autocast, (self._entered,))
            self._entered = None
        if region is not None:
            self._entered = self.fx_graph.call_function(_enter_autocast, (region.device, None, False, None))
        self.current = region


def moved_region(node: torch.fx.Node, before: torch.device, after: torch.device) -> None:
    """Let a region follow the tensors that it was made for to another device."""
    if node.target is _enter_autocast and node.args[0] == before.type:
        node.args = (after.type, *node.args[1:])
