"""Optimizers: their state for the source's parameters, grown to the clone's."""
