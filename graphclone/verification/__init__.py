"""How source and clone are compared, whatever the format."""
