"""Generated against real data."""
