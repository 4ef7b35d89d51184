"""Benchmarks: `python -m benchmarks.NAME` in a checkout, `attnmod bench NAME` where attnmod is installed."""
