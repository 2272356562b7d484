"""Models of every kind grow by other numbers than two, exactly."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

from graphclone.verification.lockstep import run_lockstep
from tests.support.marks import slow_but
from tests.support.other_sizes import OTHERS

STRATEGIES = ("symmetric", "diagonal", "noisy-symmetric", "fresh")


SLOW = ("Mamba2 by 3/2",)


@pytest.mark.parametrize("name", slow_but([name for name in OTHERS if name not in SLOW], OTHERS))
def test_every_node_is_exact(name: str) -> None:
    """Each by one strategy, in turn; ``python -m tests.ladders --others`` takes all of them by all."""
    built = OTHERS[name].build()
    clone = OTHERS[name].grown(built, STRATEGIES[[*OTHERS].index(name) % len(STRATEGIES)])
    assert any(growth.new_size % growth.size for growth in clone.state.growths.values())
    inputs = [leaf for leaf in tree_leaves((built.args, built.kwargs)) if isinstance(leaf, torch.Tensor)]
    found = run_lockstep(clone.state, inputs)
    assert found.first is None, str(found.first)
    assert found.worst < 1e-12
