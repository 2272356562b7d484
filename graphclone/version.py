"""The version of graphclone."""

__version__ = "0.1.0"
