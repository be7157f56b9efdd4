"""Lossless compression of discrete data with a VAE: bits-back coding with asymmetric numeral systems."""
