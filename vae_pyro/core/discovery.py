"""Modules found by listing their package: a variant is one new file, without a line in another."""

import importlib
import pkgutil


def import_siblings(package: str) -> None:
    """Import every module of a package, so that each registers what it holds.

    The package's ``__init__`` calls it with its own ``__name__``. Modules and subpackages come in alphabetical order,
    the same on every machine; one that is being imported already is not imported twice.

    Args:
        package: dotted name, such as ``vae_pyro.objectives``.

    Raises:
        ImportError: ``package`` has no such name, or one of its modules cannot be imported.
    """
    path = importlib.import_module(package).__path__
    for name in sorted(module.name for module in pkgutil.iter_modules(path)):
        importlib.import_module(f"{package}.{name}")
