"""One model and one clone of it for all tests of the page."""

from __future__ import annotations

import pytest

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.clones.traced import Traced
from graphclone.report import page_of, page_of_clone
from graphclone.report.page import Page
from tests.report.models import model
from tests.support.command_line import folder, refused

__all__ = ["clone", "clone_page", "folder", "page", "refused", "traced"]


@pytest.fixture(scope="session")
def traced() -> Traced:
    return gc.trace(*model())


@pytest.fixture(scope="session")
def clone() -> Clone:
    return gc.clone(*model(), widen=2, strategy="noisy-symmetric", snr_db=10)


@pytest.fixture(scope="session")
def page(traced: Traced) -> Page:
    return page_of(traced)


@pytest.fixture(scope="session")
def clone_page(clone: Clone) -> Page:
    return page_of_clone(clone, "graphclone clone m -o n --widen 2", clone.verify(onnx=False))
