"""Leakage: test data among the training data."""
