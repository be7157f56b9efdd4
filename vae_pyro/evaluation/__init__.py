"""Held-out ELBO and log p(x)."""
