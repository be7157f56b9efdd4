"""Lossless compression of discrete data with a VAE: bits-back coding with asymmetric numeral systems."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:  # the former folder exported these names itself
    from vae_pyro.core.renamed import exported_above

    __getattr__ = exported_above(__name__)
