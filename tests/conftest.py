"""What every test starts from: no network, an empty cache, one thread per worker, the same random numbers."""

from __future__ import annotations

import os
import random
import tempfile
from itertools import count

import numpy as np
import torch
from hypothesis import HealthCheck, settings

# Set before any test imports transformers, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

_CACHES = tempfile.TemporaryDirectory(prefix="graphclone-tests-")
_TESTS = count()

settings.register_profile("graphclone", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("graphclone")


def pytest_runtest_setup() -> None:
    """Seed every test alike, and let it see nothing of what others found out, whatever ran before it in the process."""
    os.environ["XDG_CACHE_HOME"] = f"{_CACHES.name}/{next(_TESTS)}"
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  the code under test may use the global generator
    torch.manual_seed(0)
