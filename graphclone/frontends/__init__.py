"""Readers of source models: each makes a ``graphclone.graph.ir.Graph`` of one kind of input."""
