"""Worked examples: targets with their data, ready to sample."""
