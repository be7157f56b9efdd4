"""New data: outliers and drift."""
