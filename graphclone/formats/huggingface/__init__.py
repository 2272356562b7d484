"""Hugging Face checkpoints: from disk to disk, with a configuration that is solved for."""
