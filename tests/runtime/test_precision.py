"""All digits of float32 while something is judged, and the user's own choice afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import torch
from graphclone.runtime.precision import all_digits

backends = torch.backends
parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn,
         backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)

def precisions():
    return [part.fp32_precision for part in parts]

def switches():
    return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32

{choice}
before = precisions()
try:
    before_switches = switches()
except RuntimeError:
    before_switches = None
try:
    with all_digits():
        assert set(precisions()) <= {{"ieee", "none"}}, precisions()
        assert switches() == ("highest", False), switches()
        raise KeyError
except KeyError:
    pass
assert precisions() == before, (precisions(), before)
if before_switches is not None:
    assert switches() == before_switches, (switches(), before_switches)
"""


@pytest.mark.parametrize(
    "choice",
    [
        "",
        "torch.set_float32_matmul_precision('medium')",
        "backends.cudnn.allow_tf32 = False",
        "backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = 'tf32'",
        "backends.cudnn.rnn.fp32_precision = 'ieee'; backends.mkldnn.conv.fp32_precision = 'bf16'",
        "backends.fp32_precision = 'tf32'",
        "backends.disable_global_flags()",  # as torch.testing does
    ],
)
def test_what_the_user_chose_is_put_aside_and_restored(choice: str) -> None:
    """In a process of its own: torch keeps these choices for all that runs in one."""
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT.format(choice=choice)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
