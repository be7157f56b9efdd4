"""``python -m vae_pyro``."""

from vae_pyro.cli.main import main

main()
