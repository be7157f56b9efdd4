"""Generated against real data: prior predictive samples, copies of training data, leakage of test data."""
