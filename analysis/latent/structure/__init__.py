"""Latent-space structure: projections, clusters, neighbours, linear probes, traversals of the decoder."""
