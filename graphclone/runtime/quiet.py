"""Silence for the libraries below while they work. What goes wrong is raised."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

_LOGGERS = (
    "onnx_ir",
    "onnxscript",
    "torch._dynamo",
    "torch._export",
    "torch._subclasses",
    "torch.export",
    "torch.fx",
    "torch.onnx",
)


@contextmanager
def silenced(level: int) -> Iterator[None]:
    """Without warnings, and without logs of any library up to a level of ``logging``."""
    disabled = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, logs and prints of torch's exporters.

    torch.export prints the graph so far of a model that it refuses, and the ONNX exporter logs which packages it
    misses.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
