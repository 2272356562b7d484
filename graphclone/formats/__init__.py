"""Formats that are read and written: one folder per format."""
