"""The algebra of widening, in sizes and factors alone: axes, growth maps, scales, strategies and recipes."""
