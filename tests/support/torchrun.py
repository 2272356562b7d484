"""Functions of the tests run by several processes at once, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ENV = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", "TORCHELASTIC_ERROR_FILE": os.devnull}


def torchrun(count: int, module: str, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module args`` in so many processes."""
    command = [*launcher(count), "-m", module, *args]
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | _ENV | {"PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)


def launcher(count: int) -> Sequence[str]:
    """The command line that everything to be run by several processes begins with."""
    return [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
