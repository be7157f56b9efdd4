"""Is the guide the posterior? Calibration, inference gaps, annealing, NUTS."""
