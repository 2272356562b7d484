"""The analysis of a graph by its rules: facts, dims, and how dims flow."""
