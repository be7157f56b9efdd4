"""Encoder and decoder bodies, and what the encoder sees of x; no probability."""
