"""What widening is, in sizes and factors alone: axes, growth maps, scales, strategies and recipes."""
