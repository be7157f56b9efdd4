"""From torch to xarray: draws and log densities of a pair at its data."""
