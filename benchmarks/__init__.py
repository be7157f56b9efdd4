"""Comparisons with other implementations and with published results; see ``benchmarks/README.md``."""
