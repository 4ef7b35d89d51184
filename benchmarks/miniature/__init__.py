"""A miniature SDXL: the little world that it draws, its training, and the scorer of its pictures."""
