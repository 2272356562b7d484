"""What is read and written: one folder per format."""
