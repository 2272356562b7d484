"""One page about a model or a clone: plain data first, then a single HTML file that needs nothing else."""

from graphclone.report.build import page_of, page_of_clone
from graphclone.report.html import check_target, render, write, write_study
from graphclone.report.node_data import node_data, write_node_data

__all__ = ["check_target", "node_data", "page_of", "page_of_clone", "render", "write", "write_node_data", "write_study"]
