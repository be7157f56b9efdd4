"""Registry, configurations, seeds and isolation, files that are written whole or not at all; no probability."""
