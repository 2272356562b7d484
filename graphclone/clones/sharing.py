"""What processes that share a clone read, write and hold, computed from shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Growth
from graphclone.analysis.dims import doubled
from graphclone.analysis.settling import settle
from graphclone.clones.traced import Traced


@dataclass(frozen=True)
class Device:
    """A device to train on, as its maker describes it.

    Attributes:
        name: of the device.
        memory: bytes.
        bandwidth: bytes a second that its memory takes.
        link: bytes a second from the host, one way.
    """

    name: str
    memory: float
    bandwidth: float
    link: float


DEVICES = {
    device.name: device
    for device in (
        Device("A100", 80e9, 2.039e12, 32e9),
        Device("H100", 80e9, 3.35e12, 64e9),
        Device("H200", 141e9, 4.8e12, 64e9),
        Device("B200", 180e9, 8e12, 64e9),
    )
}
"""By name, the SXM models; the links are PCIe of sixteen lanes."""

STORAGE = 2e9
"""Bytes a second that one process is taken to read from storage."""

_TRAINING = 12
"""Bytes of float32 per parameter that AdamW needs beside the weights: a gradient and two moments."""


@dataclass(frozen=True)
class Share:
    """The work of the busiest of several processes that make a clone twice as wide, computed from shapes.

    Every tensor is cut along its first axis, as FSDP2 does it.

    Attributes:
        ranks: how many processes there are.
        device: that each of them has.
        source: bytes of the source's tensors.
        clone: bytes of the clone's.
        read: bytes of the source that the process reads.
        written: bytes of the clone that it computes, and holds.
        training: bytes that it holds once it trains with AdamW in float32.
        fits: whether the device has as many.
        seconds: that reading, sending to the device and writing there take at the stated bandwidths, in that order.
    """

    ranks: int
    device: Device
    source: int
    clone: int
    read: int
    written: int
    training: int
    fits: bool
    seconds: tuple[float, float, float]


def share(traced: Traced, ranks: int, device: Device) -> Share:
    """Compute the work of each of so many processes, if the model doubles in every dim that grows by default."""
    facts = traced.state.facts
    chosen, _ = settle(facts, doubled(dim for group in traced.dims for dim in group.dims if dim.default))

    def growth_of(axis: Axis) -> Growth:
        return chosen.get(axis) or Growth(axis.size)

    source = clone = read = written = numbers = 0
    for initializer in facts.graph.initializers:
        if initializer.kind == "constant":
            continue
        layouts = [facts.axes.layout(axis, growth_of) for axis in facts.of[initializer.value]]
        old, new = [layout.size for layout in layouts] or [1], [layout.new_size for layout in layouts] or [1]
        bits = _bits(initializer.value.dtype)
        rows = -(-new[0] // ranks)
        source += prod(old) * bits // 8
        clone += prod(new) * bits // 8
        read += min(rows, old[0]) * prod(old[1:]) * bits // 8
        written += rows * prod(new[1:]) * bits // 8
        numbers += rows * prod(new[1:]) if initializer.kind == "parameter" else 0
    training = written + _TRAINING * numbers
    seconds = (read / STORAGE, read / device.link, written / device.bandwidth)
    return Share(ranks, device, source, clone, read, written, training, training <= device.memory, seconds)


def _bits(dtype: str) -> int:
    """The size of a number of a dtype, in bits."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8
