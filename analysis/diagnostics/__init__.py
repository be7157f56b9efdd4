"""The contract of a diagnostic, the registry of all, and the context that they run in."""
