"""Search spaces: ranges and choices of the settings of a fit, from texts such as ``latent_dim=4..32:log``."""

import re
from dataclasses import dataclass
from typing import Any

from vae_pyro.core.registry import parse_scalar, split_commas
from vae_pyro.training.resume import FREE
from vae_pyro.training.settings import parse_assignment

WAY_OUT = "write key=low..high, key=low..high:log, or key=a,b,c"

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?P<log>:log)?")
_OPTION = re.compile(r"(?P<choice>\w+):(?P<option>\w+)=(?P<range>.*\.\..*)")
# Settings of how a trial is run and measured, which do not change the model that is fitted.
_NOT_SEARCHED = ("x_shape", *FREE["fit"], "validation_particles", "compile")


@dataclass(frozen=True)
class Dimension:
    """One direction of a search.

    Attributes:
        text: as it was written.
        name: its key, such as ``latent_dim`` or ``optimizer.lr``.
        path: of the setting, as `vae_pyro.training.settings.assign` takes it.
        low: least value of a range; ``None`` where there are `choices`.
        high: largest value, itself included.
        integer: whether only integers between them are taken.
        log: whether the range is uniform on the logarithmic scale.
        choices: values as texts, each JSON or a word.
        choice: the variant that the setting is an option of, where the range was written inside it.
    """

    text: str
    name: str
    path: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    integer: bool = False
    log: bool = False
    choices: tuple[str, ...] = ()
    choice: str | None = None

    def value(self, param: Any) -> Any:
        """The setting that a parameter stands for."""
        return parse_scalar(param) if self.choices else param

    def ends(self) -> tuple[Any, ...]:
        """Both ends of a range, or every choice."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> Any:
        """The dimension as a distribution of Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


def parse_space(text: str) -> Dimension:
    """Read one dimension of a search.

    ``key=low..high`` is a range, both ends included: of integers where both ends are written as integers, else of real
    numbers; with ``:log`` after it the range is uniform on the logarithmic scale. ``key=a,b,c`` is a set of values,
    each JSON or a word; ``key=name:option=low..high`` a range for an option of a variant. Keys are those of
    ``vae-pyro fit --set``.

    Raises:
        ValueError: none of these, an empty range, a single value, or a key that is not known or cannot be searched.

    >>> parse_space("latent_dim=4..32:log").path, parse_space("encoder.hidden=[100],[200,200]").choices
    (('model', 'latent_dim'), ('[100]', '[200,200]'))
    >>> beta = parse_space("objective=beta:beta=1.0..4.0")
    >>> beta.name, beta.choice, beta.low, beta.integer
    ('objective.beta', 'beta', 1.0, False)
    """
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values:
        raise ValueError(f"--space {text!r} names no values; {WAY_OUT}")
    try:
        path, _ = parse_assignment(f"{key}=0")
    except ValueError as error:
        raise ValueError(f"--space {text!r}: {str(error).removeprefix('--set').lstrip(': ')}") from None
    if path[0] in ("data", "seed"):
        raise ValueError(
            f"--space {text!r}: every trial has the same data and the same seed, or their ELBOs could not be compared; "
            f"set it for the whole search with --set {key}=VALUE"
        )
    if path[1] in _NOT_SEARCHED:
        raise ValueError(f"--space {text!r}: {path[1]} says nothing about the model; set it with --set {key}=VALUE")
    inside = _OPTION.fullmatch(values)
    if inside:
        whole = f"{key}.{inside['option']}"
        return _range(text, whole, (*path, inside["option"]), inside["range"], inside["choice"])
    if ".." in values:
        return _range(text, key, tuple(path), values, None)
    choices = tuple(_pieces(values))
    if len(choices) < 2:
        raise ValueError(f"--space {text!r} holds one value, which is no choice; {WAY_OUT}, or --set {text}")
    if len(set(choices)) < len(choices):
        raise ValueError(f"--space {text!r} names a value twice; name each once")
    return Dimension(text, key, tuple(path), choices=choices)


def _range(text: str, name: str, path: tuple[str, ...], values: str, choice: str | None) -> Dimension:
    found = _RANGE.fullmatch(values)
    if not found:
        raise ValueError(f"--space {text!r}: {values!r} is no range of numbers; {WAY_OUT}")
    integer = not any(mark in end for end in (found["low"], found["high"]) for mark in ".eE")
    low, high = (int(end) if integer else float(end) for end in (found["low"], found["high"]))
    if low >= high:
        raise ValueError(f"--space {text!r}: the range from {low:g} to {high:g} is empty; write the smaller end first")
    if found["log"] and low <= 0:
        raise ValueError(f"--space {text!r}: a logarithmic range begins above 0, got {low:g}; raise it or drop ':log'")
    return Dimension(text, name, path, low, high, integer, bool(found["log"]), choice=choice)


def _pieces(values: str) -> list[str]:
    """Values between commas; ``option=value`` belongs to the variant before it."""
    joined: list[str] = []
    for piece in map(str.strip, split_commas(values)):
        if joined and ":" in joined[-1] and re.match(r"\w+=", piece):
            joined[-1] += f",{piece}"
        elif piece:
            joined.append(piece)
    return joined
