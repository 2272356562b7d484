"""What the rules say about a graph: facts, dims, and how they flow."""
