"""Fixtures of the tests of the command line."""

from __future__ import annotations

from tests.support.command_line import folder, refused

__all__ = ["folder", "refused"]
