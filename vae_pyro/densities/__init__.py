"""Log densities of draws, and their moments."""
