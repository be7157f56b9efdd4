"""Verbs of ``vae-pyro``, one a file: each registers itself with `vae_pyro.cli.registration.verb`."""
