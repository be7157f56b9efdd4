"""An estimate with its error, printed with its significant digits."""

from dataclasses import dataclass
from math import floor, isfinite, isnan, log10

_ERROR_DIGITS = 2
_EXACT_DIGITS = 4
_LARGE, _SMALL = 1e7, 1e-4
_ROUNDING = 1e-9
MINUS, DASH, _TIMES = "\u2212", "\u2013", "\u00d7"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, printed with the digits that are significant: ``−17.234 ± 0.031``.

    Attributes:
        value: the estimate.
        error: its standard error, in the same unit; ``None`` where it is exact.
        unit: shown after it; empty for a pure number.
    """

    value: float
    error: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        return plus_minus(self.value, self.error, self.unit)


def plus_minus(value: float, error: float | None = None, unit: str = "") -> str:
    """A value with its error, both rounded to the second significant digit of the error.

    An integer part is never rounded. A value without an error has four significant digits, a count all of its own;
    so has one whose error is below a billionth of it.
    From ten million up and below a ten-thousandth, a power of ten is appended. What is not a number is a dash.

    Raises:
        ValueError: the error is negative.

    >>> plus_minus(-17.23456, 0.0314), plus_minus(1234.4, 120), plus_minus(3, unit="latents")
    ('−17.235 ± 0.031', '1,234 ± 120', '3 latents')
    >>> plus_minus(2.5e-7, 3e-9), plus_minus(0.7), plus_minus(float("nan"))
    ('(2.500 ± 0.030) × 10⁻⁷', '0.7', '–')
    """
    if error is not None and error < 0:
        raise ValueError(f"a standard error is at least 0, got {error:g}")
    tail = f" {unit}" if unit else ""
    if error is not None and error < _ROUNDING * abs(value):
        error = None
    if isnan(value):
        return DASH
    if not isfinite(value):
        return f"{MINUS if value < 0 else ''}∞{tail}"
    size = max(abs(value), error if error is not None and isfinite(error) else 0.0)
    if 0 < size < _SMALL or size >= _LARGE:
        power = floor(log10(size))
        scale = 10.0**power
        text = _plain(value / scale, None if error is None else error / scale)
        inside = f"({text})" if " " in text else text
        return f"{inside} {_TIMES} 10{str(power).translate(_SUPERSCRIPT)}{tail}"
    return _plain(value, error) + tail


def _plain(value: float, error: float | None) -> str:
    if error is None or error == 0:
        if value == int(value):
            return _signed(f"{value:,.0f}")
        decimals = max(_EXACT_DIGITS - 1 - floor(log10(abs(value))), 0)
        text = f"{value:,.{decimals}f}"
        return _signed(text.rstrip("0").rstrip(".") if decimals else text)
    if not isfinite(error):
        return f"{_plain(value, None)} ± {DASH if isnan(error) else '∞'}"
    rounded = float(f"{error:.{_ERROR_DIGITS - 1}e}")  # 0.0996 has its second digit where 0.10 has it
    decimals = max(_ERROR_DIGITS - 1 - floor(log10(rounded)), 0)
    shown = rounded if decimals else error
    return f"{_signed(f'{value:,.{decimals}f}')} ± {shown:,.{decimals}f}"


def _signed(text: str) -> str:
    zero = not text.strip("-0.,")
    return text.lstrip("-") if zero else text.replace("-", MINUS)
