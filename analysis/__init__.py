"""Does the model fit, and can its posterior be trusted? Estimates with their errors, on ArviZ's data structures.

Names are imported when they are first used (PEP 562), so that ``import analysis`` takes no time; ``__init__.pyi`` lists
them and the modules that hold them.
"""

from typing import Any

import lazy_loader

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    value = globals()[name] = _find(name)
    return value
