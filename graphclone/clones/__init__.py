"""Clones: what a pipeline has made, and how it is written."""
