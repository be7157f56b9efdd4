"""Seconds of a training epoch of the same VAE, by several implementations."""
