"""Encoder and decoder bodies by name, one file each, and the features of x that an encoder reads; no probability."""

from vae_pyro.core.discovery import import_siblings
from vae_pyro.nn.base import DECODERS, ENCODERS, Decoder, Encoder

__all__ = ["DECODERS", "ENCODERS", "Decoder", "Encoder"]

import_siblings(__name__)
