"""Ways to quantise: one step each, behind the seam of `method`."""
