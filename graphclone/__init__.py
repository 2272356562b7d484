"""graphclone: wider networks that compute the same."""
