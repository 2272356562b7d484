"""The processes that share a piece of work: one, or as many as ``torchrun`` has started, on one machine or several.

They talk through the key-value store by which ``torchrun`` brought them together. Whoever waits for another looks out
for failures meanwhile, so that all stop when one does.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from graphclone.errors import GraphcloneError, StoppedError, first_line

_FAILED = "failed"
_PAUSE = 0.05
"""Seconds between two looks for what another process is to say."""

_OFTEN = 1.0
"""Seconds between two looks for failures while there is work to do."""


@dataclass(eq=False)
class Ranks:
    """The processes, seen by one of them.

    Attributes:
        rank: which one this is.
        count: how many there are.
        store: by which they talk; None for one alone.
    """

    rank: int = 0
    count: int = 1
    store: Any = None
    _rounds: int = field(default=0, repr=False)
    _looked: float = field(default=0.0, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that does what is to be done once."""
        return self.rank == 0

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in order of rank. Every process must call this, equally often.

        Args:
            value: of types that JSON has.

        Raises:
            StoppedError: another process failed meanwhile.
        """
        if self.count == 1:
            return [value]
        self._rounds += 1
        keys = [f"{self._rounds}/{rank}" for rank in range(self.count)]
        self._ask("set", keys[self.rank], json.dumps(value))
        while not self._ask("check", keys):
            self.stop_if_failed()
            time.sleep(_PAUSE)
        return [json.loads(self._ask("get", key)) for key in keys]

    def fail(self) -> bool:
        """Let the others know that this process failed; whether it is the first to, and so the one to say why."""
        if self.count == 1:
            return True
        try:
            return bool(self.store.compare_set(_FAILED, "", str(self.rank)) == str(self.rank).encode())
        except Exception:  # the process that kept the store is gone
            return True

    def stop_if_failed(self) -> None:
        """Stop where another process has failed.

        Raises:
            StoppedError: it has.
        """
        if self.count > 1 and self._ask("check", [_FAILED]):
            raise StoppedError(f"stopped, because rank {self._ask('get', _FAILED).decode()} failed")

    def look_out(self) -> None:
        """Stop where another process has failed; called often, it looks seldom.

        Raises:
            StoppedError: it has.
        """
        if self.count > 1 and time.monotonic() - self._looked > _OFTEN:
            self._looked = time.monotonic()
            self.stop_if_failed()

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self.store, method)(*args)
        except Exception as error:  # of many kinds
            raise StoppedError(f"stopped, because the other processes are gone: {first_line(error)}") from error


ALONE = Ranks()


@cache
def current() -> Ranks:
    """The processes that ``torchrun`` started beside this one, or this one alone.

    Raises:
        GraphcloneError: they do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://"))
    except Exception as error:  # of many kinds
        reason = f"the processes do not find each other: {first_line(error)}"
        raise GraphcloneError(f"{reason}; start them with torchrun") from error
    return Ranks(rank, count, PrefixStore("graphclone", store))


def rank_of_environment() -> int:
    """The rank of this process under ``torchrun``, read from its environment."""
    return int(os.environ.get("RANK", "0")) if are_several() else 0


def are_several() -> bool:
    """Whether this is one of several processes that ``torchrun`` has started, by its environment."""
    return os.environ.get("WORLD_SIZE", "1") != "1"
