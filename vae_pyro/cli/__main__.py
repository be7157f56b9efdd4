"""``python -m vae_pyro.cli``."""

from vae_pyro.cli.main import main

main()
