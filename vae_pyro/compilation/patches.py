"""Every change that is made to another library's names at run time, each with its reason and for no longer than needed.

A change is made here only where a subclass, an effect handler or a torch function mode cannot do it; the modes are in
`vae_pyro.compilation.modes`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pyro.util


@contextmanager
def without_nan_warnings() -> Iterator[None]:
    """While inside, `pyro.util.warn_if_nan` finds no NaN, wherever it has been imported to.

    Pyro's losses end in ``if isnan(loss).any()``: control flow on the value of a tensor, which a trace does not have.
    A torch function mode sees ``isnan`` and the conversion to a boolean, but not that Pyro asks; a program that
    branches on NaN itself must fail. Every copy of `warn_if_nan` reads this one global name of its own module.
    """
    with mock.patch.object(pyro.util, "torch_isnan", return_value=False):
        yield
