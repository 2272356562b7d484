"""PyTorch modules: traced, written as modules and exported programs, and verified."""
