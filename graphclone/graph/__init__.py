"""The graph that every pass works on, and what must hold of it."""
