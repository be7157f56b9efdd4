"""Whether two estimates of log p(x) may be compared."""

from typing import Any

import numpy as np

from analysis.density.result import ELPD
from vae_pyro.data.observation import Space
from vae_pyro.densities.measure import Target, Variables

type Array = np.ndarray[Any, Any]


def require_comparable(name: str, first: ELPD, other_name: str, other: ELPD) -> None:
    """Refuse two estimates that are not of the same densities of the same data with the same draws.

    Raises:
        ValueError: naming both, what differs and the way out.
    """
    pair = f"{name} and {other_name}"
    if Space(first.space) != Space(other.space):
        raise ValueError(
            f"{pair} are of different observation spaces, {first.space!r} and {other.space!r}: their log densities are "
            "of different things; observe the data of both alike and fit again"
        )
    if first.measure is not None and other.measure is not None and first.measure != other.measure:
        raise ValueError(
            f"{pair} are not comparable: p(x) is a {first.measure} in one and a {other.measure} in the other; choose "
            "likelihoods of one kind: both discrete or both continuous, and counts given their total or an exposure "
            "with their like; or dequantize the data"
        )
    if first.of is not None and other.of is not None and first.of != other.of:
        raise ValueError(
            f"{pair} are not comparable: {name} is scored by log p({_density(first.of)}), {other_name} by "
            f"log p({_density(other.of)}), and their difference does not show which predicts x better; "
            f"{_way_out(first.of, other.of)}"
        )
    if not np.array_equal(first.ids, other.ids):
        raise ValueError(
            f"{pair} are of different data: {len(first):,} with ids {_some(first.ids)}, {len(other):,} with ids "
            f"{_some(other.ids)}; evaluate both on the same data in the same order"
        )
    if first.fingerprint != other.fingerprint:
        raise ValueError(
            f"{pair} have other values under the same ids: binarised, dequantised, masked or scaled otherwise; fix "
            "random observations once, with split.fixed(seed), and pass both the same"
        )
    if first.num_draws != other.num_draws:
        raise ValueError(
            f"{pair} have {first.num_draws:,} and {other.num_draws:,} draws, and bounds of different K are not "
            "comparable; evaluate both with the same num_draws"
        )


def _density(of: str) -> str:
    """As it is written: ``x | y`` for ``x given y``."""
    written = {Variables.X_GIVEN_Y: "x | y", Variables.X_AND_Y: "x, y", Variables.X_AND_MASK: "x, mask"}
    return written.get(Target.parse(of).variables, of)


def _way_out(*of: str) -> str:
    """How to compare where the densities are of these things."""
    kinds = {Target.parse(text).variables for text in of}
    if Variables.X_AND_MASK in kinds:
        return (
            "compare structures 'not_at_random' among themselves, and with others by their imputations of elements "
            "that were hidden on purpose"
        )
    if kinds & {Variables.X_AND_Y, Variables.X_AND_SOME_Y}:
        return "evaluate structure 'm2' on the data without y, or all models with the same y and of structure 'm2'"
    return "compare structures 'conditional' among themselves, all given the same y"


def _some(ids: Array) -> str:
    shown = ", ".join(str(i) for i in ids[:3])
    return f"{shown}, ..." if len(ids) > 3 else shown
