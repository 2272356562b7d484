"""Writers of clones: each turns a ``graphclone.graph.ir.Graph`` and its tensors into one kind of output."""
