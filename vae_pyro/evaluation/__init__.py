"""Held-out ELBO and log p(x)."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:  # the former module of this name had what vae_pyro exports
    from vae_pyro.core.renamed import exported_above

    __getattr__ = exported_above(__name__)
