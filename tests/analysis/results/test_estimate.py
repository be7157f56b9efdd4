"""Figures are printed with the digits that they have."""

import math
import re

import numpy as np
import pytest

from analysis.results.estimate import Estimate, plus_minus


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-90.1234, 0.0456, "\u221290.123 ± 0.046"),
        (0.5, 0.0996, "0.50 ± 0.10"),  # the error is rounded first: 0.0996 is 0.10, not 0.100
        (9061.04, 145.14, "9,061 ± 145"),
        (12.3, 9.96, "12 ± 10"),
        (-0.004, 0.13, "0.00 ± 0.13"),  # no negative zero
        (3.0, 0.0, "3"),
        (8.0, 1e-40, "8"),
        (0.0, 0.25, "0.00 ± 0.25"),
        (12340.4, None, "12,340"),
        (0.069321, None, "0.06932"),
        (0.7, None, "0.7"),
        (360, None, "360"),
        (1234567, None, "1,234,567"),
        (2.5e9, 1e8, "(2.50 ± 0.10) \u00d7 10⁹"),
        (3e-7, None, "3 \u00d7 10⁻⁷"),
        (math.nan, 0.1, "\u2013"),
        (-math.inf, None, "\u2212∞"),
        (2.5, math.nan, "2.5 ± \u2013"),
        (2.5, math.inf, "2.5 ± ∞"),
    ],
)
def test_estimates_are_rounded_to_the_digits_of_their_error(value: float, error: float | None, shown: str) -> None:
    assert plus_minus(value, error) == shown
    assert str(Estimate(value, error, "nats")) == (shown if math.isnan(value) else f"{shown} nats")


def test_what_is_printed_is_within_half_a_last_digit_of_what_is_meant() -> None:
    draw = np.random.default_rng(0)
    for _ in range(500):
        value = float(draw.normal() * 10.0 ** draw.uniform(-3, 6))
        error = float(10.0 ** draw.uniform(-3, 3))
        text = plus_minus(value, error).replace(",", "").replace("\u2212", "-")
        shown, shown_error = (float(part) for part in text.split(" ± "))
        assert abs(shown - value) <= 0.0501 * max(error, 10.0)
        assert abs(shown - value) <= 0.5001 * 10.0 ** -len(re.sub(r"[^.]*\.?", "", text.split(" ± ")[0], count=1))
        assert shown_error == pytest.approx(error, rel=0.051)


def test_a_negative_error_is_refused() -> None:
    with pytest.raises(ValueError, match="a standard error is at least 0, got -1"):
        plus_minus(1.0, -1.0)
