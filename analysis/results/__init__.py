"""Verdicts, estimates with errors, HTML pages."""
