"""Former names of arguments: refused with the name that replaced them, for one release."""

from collections.abc import Callable
from functools import wraps


def renamed[**P, R](**former: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that refuses former argument names.

    Args:
        former: the new name of each former one: ``num_samples="num_draws"``.

    Raises:
        TypeError: at a call with a former name; the message gives the new one.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in former.keys() & kwargs.keys():
                raise TypeError(f"{function.__name__}() takes {former[old]!r}, which was called {old!r} before 0.2")
            return function(*args, **kwargs)

        return checked

    return decorate
