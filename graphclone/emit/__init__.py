"""Writers of clones: each turns a ``graphclone.ir.Graph`` and its tensors into one kind of output."""
