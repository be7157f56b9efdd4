"""``python -m vae_pyro``: the command ``vae-pyro``."""

from vae_pyro.cli.main import main

if __name__ == "__main__":  # and not in the processes that import this module to work for it
    main()
