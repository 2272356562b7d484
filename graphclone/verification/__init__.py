"""The comparison of source and clone, whatever the format."""
