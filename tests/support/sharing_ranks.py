"""A study that several processes share: they stop in the middle of a run, and go on with it.

torchrun --nproc-per-node 2 -m tests.support.sharing_ranks RUN.toml FOLDER RUN STEP
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from torch.distributed.tensor import DTensor

from graphclone.cli.__main__ import main
from graphclone.study.training import _TrainingRun


def share(run: _TrainingRun) -> float:
    """How much of its model a process holds."""
    own = [p.to_local() if isinstance(p, DTensor) else p for p in run.module.parameters()]
    return sum(p.numel() for p in own) / sum(p.numel() for p in run.module.parameters())


def stopped_once(toml: str, folder: str, name: str, at: int) -> int:
    learn = _TrainingRun.learn

    def learning(run: _TrainingRun, step: int) -> None:
        if run.folder.name == name and step == at:
            raise InterruptedError(f"holds {share(run):.3f}")
        learn(run, step)

    words = ["study", toml, "-o", folder]
    with patch.object(_TrainingRun, "learn", learning):
        assert main(words) == 2
    assert [path.name for path in Path(folder).glob(f"runs/{name}/state-*")] == [f"state-{at - at % 4}"]
    return main(words)


if __name__ == "__main__":
    toml, folder, name, step = sys.argv[1:]
    sys.exit(stopped_once(toml, folder, name, int(step)))
