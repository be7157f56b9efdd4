"""Stochastic variational inference as one compiled step."""
