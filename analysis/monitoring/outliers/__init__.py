"""Outliers: data that are unlike those that the model was fitted to."""
