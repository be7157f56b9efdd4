"""The report of a fitted pair."""
