"""Comparison of the variants of an experiment over several seeds, on one test set."""
