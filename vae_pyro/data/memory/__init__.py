"""Splits whose data are in memory: dense, or as sparse rows."""
