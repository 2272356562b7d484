"""Clones: what a pipeline has made, what it can be made from, and how it is written."""
