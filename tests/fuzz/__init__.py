"""A standing adversary: random modules, random requests, and an oracle of its own that judges the clones."""
