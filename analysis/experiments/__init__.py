"""Comparisons of variants over seeds, searches over settings."""
