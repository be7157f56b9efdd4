"""Measurements against other implementations and against published figures; see ``benchmarks/README.md``."""
