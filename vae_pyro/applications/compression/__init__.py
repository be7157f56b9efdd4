"""Lossless compression of discrete data with a VAE: bits-back coding with asymmetric numeral systems."""

from vae_pyro.applications.compression.archive import Archive, ArchiveError, CodeLength, read_archive
from vae_pyro.applications.compression.codec import compress, decompress
from vae_pyro.applications.compression.rates import Rates
from vae_pyro.applications.compression.rivals import rival_sizes

__all__ = [
    "Archive",
    "ArchiveError",
    "CodeLength",
    "Rates",
    "compress",
    "decompress",
    "read_archive",
    "rival_sizes",
]
