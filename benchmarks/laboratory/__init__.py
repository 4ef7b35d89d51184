"""The laboratory: what a setting of the modulation does to alignment, counted in the little world."""
