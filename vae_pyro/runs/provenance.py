"""What computed a run: versions, and the revision of this package."""

import platform
import subprocess
from pathlib import Path
from typing import Any

from vae_pyro.core.versions import installed_versions

_VERSIONED = ("vae_pyro", "torch", "pyro-ppl", "torchvision", "arviz", "numpy")


def provenance() -> dict[str, Any]:
    """Versions of what computed a run, and the git revision of this package where it is a checkout."""
    versions = {"python": platform.python_version(), **installed_versions(_VERSIONED)}
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # not the revision of a repository around a .venv
        revision = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        revision = None
    return {"versions": versions, "git_revision": revision}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
