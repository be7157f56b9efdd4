"""Simulation-based calibration of the guide."""
