"""Files of arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphclone.errors import GraphcloneError
from graphclone.runtime.arrays import load_arrays


def test_arrays_come_by_name_as_they_were_saved(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", ids=np.arange(14).reshape(2, 7), number=np.array(3))
    arrays = load_arrays(tmp_path / "inputs.npz")
    assert arrays["ids"].tolist() == [[*range(7)], [*range(7, 14)]]
    assert arrays["number"].shape == () and arrays["number"] == 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: np.savez(path, x=np.array([{}], dtype=object)), "it holds something else"),
        (lambda path: path.write_text("no arrays"), "it holds something else"),
        (lambda path: None, "no such file"),
    ],
    ids=["objects", "text", "none"],
)
def test_a_file_that_holds_no_arrays_is_refused(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    make(path)
    with pytest.raises(
        GraphcloneError, match=rf"inputs.npz: not an .npz file of arrays: .*{reason}.*; write it with numpy"
    ):
        load_arrays(path)
