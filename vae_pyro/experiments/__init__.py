"""Experiments: every combination of objective, grid value and seed as a run folder of its own, on the same data."""
