"""What an optimizer knows about the parameters of the source, grown to those of the clone."""
