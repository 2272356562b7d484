"""Signals that end a command, so that it can tidy up first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from graphclone.runtime.ranks import are_several


class Terminated(KeyboardInterrupt):
    """The process is asked to end, by ``kill`` or by what started it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise at the first signal that asks the process to end; a second one ends it at once, without a word.

    Only the main thread is told of signals: in another one nothing changes. A signal that the process was started to
    ignore, as in the background of a script, is ignored. Of several processes each may wait for the others, deaf to
    signals that it would have to handle: ``SIGTERM`` ends those at once, as ``torchrun`` expects.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT,) if are_several() else (signal.SIGINT, signal.SIGTERM)
    asked = False

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        nonlocal asked
        if asked:
            os._exit(exit_code(number))
        asked = True
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    heard = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(number: int) -> int:
    """What a shell reports of a process that a signal ends."""
    return 128 + number
