"""``python -m graphclone``: the command line."""

import sys

from graphclone.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
