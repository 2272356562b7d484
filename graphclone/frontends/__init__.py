"""Readers of source models: each makes a ``graphclone.ir.Graph`` of one kind of input."""
