"""Variational autoencoders as Bayesian models: a Pyro model, an amortized guide, and diagnostics of both.

Names are imported when they are first used (PEP 562), so that ``import vae_pyro`` takes no time; ``__init__.pyi`` lists
them and the modules that hold them.
"""

from typing import Any

import lazy_loader

from vae_pyro.core.renamed import no_name

__version__ = "0.1.0"

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise no_name(name)
    value = globals()[name] = _find(name)
    return value
