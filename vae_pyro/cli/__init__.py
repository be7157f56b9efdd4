"""The command ``vae-pyro``."""
