"""Processes that work together: ranks of one fit, locks, signals, workers on one machine or a cluster."""
