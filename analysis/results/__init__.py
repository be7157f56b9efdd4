"""Verdicts, estimates with errors, the base of results, HTML pages."""
