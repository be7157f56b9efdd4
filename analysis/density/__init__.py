"""How probable are held-out data? log p(x) of each datum, comparison of models."""
