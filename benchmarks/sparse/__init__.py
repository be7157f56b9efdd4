"""Sparse counts: time and memory of sparse rows, and predictions by likelihood."""
