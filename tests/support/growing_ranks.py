"""A run of transformers' Trainer in several processes, that grows; the first writes down what came of it.

torchrun --nproc-per-node 2 -m tests.support.growing_ranks FOLDER plain|grows
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from graphclone.callbacks import GrowthCallback
from graphclone.errors import GraphcloneError
from tests.support.trainers import decoder, losses, trainer

STEPS = 7


def main(folder: Path, how: str) -> None:
    """Train, and say the losses and how far the processes' parameters are apart."""
    at = {"plain": {}, "grows": {2: 2, 4: {"layers.*.mlp": 2}}, "refused": {2: {"head": 2}}}[how]
    run = trainer(decoder(), folder / how, STEPS, callbacks=[GrowthCallback(at)])
    found: dict[str, Any] = {}
    try:
        run.train()
    except GraphcloneError as error:
        found["error"] = str(error)
    flat = torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])
    everyone = [torch.empty_like(flat) for _ in range(run.args.world_size)]
    torch.distributed.all_gather(everyone, flat)
    found["apart"] = max(float((other - flat).abs().max()) for other in everyone)
    found |= {"losses": losses(run), "hidden": run.model.config.hidden_size}
    if run.args.process_index == 0:
        (folder / f"{how}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
