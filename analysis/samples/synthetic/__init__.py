"""Draws of a table beside its rows: columns, pairs of columns, prediction, and disclosure of training rows."""
