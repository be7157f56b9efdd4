"""A calibration in words: what each latent departs by, and the guide as a whole."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.posterior.calibration.result import Calibration

_WORDS = ("too narrow", "too wide", "biased", "misshapen")


def labels(calibration: "Calibration") -> tuple[str, ...]:
    """See `analysis.posterior.calibration.result.Calibration.labels`."""
    found = []
    for index in range(calibration.num_latents):
        words = []
        if calibration.significant(calibration.p_width[index]):
            words.append("too wide" if calibration.spread[index] < 1 else "too narrow")
        if calibration.significant(calibration.p_bias[index]):
            words.append("biased")
        if not words:
            words.append("misshapen" if calibration.significant(calibration.p_values[index]) else "calibrated")
        found.append(" and ".join(words))
    return tuple(found)


def statement(calibration: "Calibration") -> str:
    """See `analysis.posterior.calibration.result.Calibration.statement`."""
    found = calibration.labels
    wrong = [index for index, label in enumerate(found) if label != "calibrated"]
    if not wrong:
        joint = [
            name
            for name, p in zip(calibration.names, calibration.p_values, strict=True)
            if calibration.significant(p)
        ]  # fmt: skip
        if not joint:
            found_by = "the ranks of " if calibration.evidence and calibration.evidence.outcome != "pass" else ""
            return f"no departure from the posterior found in {found_by}{calibration.num_simulations:,} simulations"
        return (
            f"each latent is calibrated on its own, but not all together ({', '.join(joint)}): the guide misses how "
            "they depend on each other or on x"
        )
    overall = " and ".join(word for word in _WORDS if any(word in label for label in found))
    smallest = np.minimum(
        np.minimum(calibration.p_values[: calibration.num_latents], calibration.p_bias), calibration.p_width
    )
    order = sorted(wrong, key=lambda index: smallest[index])
    details = "; ".join(_detail(calibration, index) for index in order[:3])
    rest = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"the guide is {overall} ({len(wrong)} of {calibration.num_latents} latents): {details}{rest}"


def _detail(calibration: "Calibration", index: int) -> str:
    parts = []
    if calibration.significant(calibration.p_width[index]):
        spread, error = calibration.spread[index], calibration.spread_se[index]
        parts.append(f"posterior {spread:.2f} ± {error:.2f} times as wide")
    if calibration.significant(calibration.p_bias[index]):
        bias, error = calibration.bias[index], calibration.bias_se[index]
        parts.append(f"too {'low' if bias > 0 else 'high'} by {abs(bias):.2f} ± {error:.2f} sd")
    return f"{calibration.names[index]} {', '.join(parts) or 'ranks not uniform'}"
