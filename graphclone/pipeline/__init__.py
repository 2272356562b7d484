"""Passes and how they are run, and the graph as text."""
