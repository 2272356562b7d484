"""One page about a model or a clone: plain data first, then a single HTML file that needs nothing else."""

from graphclone.report.build import page_of, page_of_clone
from graphclone.report.html import check_target, render, write

__all__ = ["check_target", "page_of", "page_of_clone", "render", "write"]
