"""The command line, one of whose processes is killed, or fails, once it has written a file.

torchrun --nproc-per-node 2 -m tests.support.killed_rank 1 killed clone ...
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest.mock import patch

from graphclone.cli.__main__ import main
from graphclone.formats.huggingface import staging
from graphclone.runtime.shards import Done, write_shards


def main_of_one(rank: str, how: str, argv: list[str]) -> int:
    """The exit code of the command, unless this is the process that is killed."""

    def write(folder: Any, shards: Any, done: Done, *rest: Any) -> None:
        def die(*told: Any) -> None:
            done(*told)
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, "No space left on device")

        write_shards(folder, shards, die if os.environ["RANK"] == rank else done, *rest)

    with patch.object(staging, "write_shards", write):
        return main(argv)


if __name__ == "__main__":
    sys.exit(main_of_one(sys.argv[1], sys.argv[2], sys.argv[3:]))
