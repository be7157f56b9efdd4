"""``python -m vae_pyro``: the command ``vae-pyro``."""

import sys

_INTERRUPTED = 130  # 128 and the number of SIGINT


def main() -> None:
    """Entry point of the console script; Ctrl-C while the command line is imported ends it quietly."""
    try:
        from vae_pyro.cli.main import app
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    app()


if __name__ == "__main__":  # and not in the processes that import this module to work for it
    main()
