"""The format of checkpoints: what writes and verifies their clones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from graphclone.clones.clone import Format
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.writer import write_checkpoint

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.formats.huggingface.plan import Plan
    from graphclone.verification.checks import Report
    from graphclone.verification.steps import Options


def checkpoint_format(plan: Plan) -> Format:
    """The format of the clone of a checkpoint, which is written as a folder.

    Args:
        plan: what has been decided about it.
    """

    def write(_: Clone, path: Path) -> None:
        write_checkpoint(plan, path, verify=False)

    def verify(_: Clone, options: Options) -> Report:
        """Write the clone into a temporary folder, and load both from their folders."""
        from graphclone.formats.huggingface.verifier import run_source, verify_checkpoints

        _check_options(options)
        source = run_source(plan.checkpoint, options.sets, options.seed)
        with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder:
            write_checkpoint(plan, Path(folder) / "clone", verify=False)
            return verify_checkpoints(plan, Path(folder) / "clone", source)

    return Format(source="a checkpoint", writers={"": write}, verifier=verify)


def _check_options(options: Options) -> None:
    """Refuse what means nothing where ``from_pretrained`` loads a model from its files, onto the CPU."""
    refused = {
        "provider": options.provider == "cuda",
        "onnx": isinstance(options.onnx, Path),
        "tensors": options.tensors is not None,
    }
    for name, is_given in refused.items():
        if is_given:
            raise GraphcloneError(f"verify: {name}= is not for checkpoints, which from_pretrained loads and runs")
