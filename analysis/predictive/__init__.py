"""Predictive checks."""
