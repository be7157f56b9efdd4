"""Draws of single posteriors, beyond what an amortized guide gives."""
