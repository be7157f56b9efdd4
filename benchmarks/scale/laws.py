"""Growth of time and memory: lines and power laws by least squares, and those of an axis of `benchmarks.scale`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log, nan, sqrt
from typing import Any

import numpy as np

# From this many rows on, both windows of a stream are full (`vae_pyro.data.streams.windows.WINDOW_BYTES`), and its
# memory is constant.
_WINDOWS_FULL = 100_000


@dataclass(frozen=True)
class Slope:
    """A line through points by least squares.

    Attributes:
        slope: of the line, or, of logarithms, the exponent.
        se: its standard error from the residuals; NaN where two points leave none.
        intercept: at zero; of logarithms, the logarithm of the factor.
        low: least x.
        high: greatest x.
        count: number of points.
    """

    slope: float
    se: float
    intercept: float
    low: float
    high: float
    count: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the slope, by Student's t with ``count - 2`` degrees of freedom.

        The errors are assumed independent, normal and of equal variance; a systematic deviation from the line
        enlarges them.
        """
        from scipy.stats import t

        half = float(t.ppf(0.5 + level / 2, self.count - 2)) * self.se if self.count > 2 else nan
        return self.slope - half, self.slope + half

    def text(self, digits: int = 2) -> str:
        """``0.98 ± 0.01 (16 to 4,096)``."""
        error = f" ± {self.se:,.{digits}f}" if self.count > 2 else ""
        return f"{self.slope:,.{digits}f}{error} ({self.low:,.0f} to {self.high:,.0f})"


def line(x: Sequence[float], y: Sequence[float]) -> Slope:
    """``y = intercept + slope x`` by least squares.

    Raises:
        ValueError: lengths that differ, or fewer than two different x.
    """
    if len(x) != len(y) or len(set(x)) < 2:
        raise ValueError(f"x and y must have the same length and x two different values, got {list(x)} and {list(y)}")
    at, value = np.asarray(x, np.float64), np.asarray(y, np.float64)
    centred = at - at.mean()
    spread = float(centred @ centred)
    slope = float(centred @ value) / spread
    intercept = float(value.mean() - slope * at.mean())
    rest = value - intercept - slope * at
    se = sqrt(float(rest @ rest) / (len(at) - 2) / spread) if len(at) > 2 else nan
    return Slope(slope, se, intercept, float(at.min()), float(at.max()), len(at))


def power_law(x: Sequence[float], y: Sequence[float]) -> Slope:
    """``y = factor x**exponent`` by least squares on logarithms: each point counts by its relative error.

    Raises:
        ValueError: a number that is not positive, or as for `line`.
    """
    if min([*x, *y], default=0.0) <= 0:
        raise ValueError(f"x and y must be positive for a power law, got {list(x)} and {list(y)}")
    found = line([log(value) for value in x], [log(value) for value in y])
    return replace(found, low=float(min(x)), high=float(max(x)))


def laws(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of time, and bytes for each unit of x, from the measured rows."""
    done = [row for row in rows if "error" not in row and "ms_per_step" in row]
    found: dict[str, Any] = {}
    if name == "processes":
        return _efficiency(done)
    kinds = {"in memory": False, "streamed": True} if name == "rows" else {"": None}
    for kind, streamed in kinds.items():
        own = [row for row in done if streamed is None or row["stream"] == streamed]
        ending = f", {kind}" if kind else ""
        if len(own) < 2:
            continue
        x = [row["x"] for row in own]
        time, label = ("epoch_seconds", "seconds of an epoch") if name == "rows" else ("ms_per_step", "time of a step")
        found[f"{label}{ending}, exponent"] = _plain(power_law(x, [row[time] for row in own]))
        found[f"{label}{ending}, exponent of the last two"] = _plain(power_law(x[-2:], [row[time] for row in own[-2:]]))
        memory = {"peak memory": [row["device_bytes"] or row["peak_bytes"] for row in own]}
        if name == "rows":
            memory["peak memory while opening"] = [row["opening_bytes"] for row in own]
        for what, held in memory.items():
            found[f"{what}{ending}, exponent"] = _plain(power_law(x, held))
            full = [pair for pair in zip(x, held, strict=True) if name != "rows" or pair[0] >= _WINDOWS_FULL]
            if len(full) > 1:
                found[f"{what}{ending}, bytes for each"] = _plain(line(*zip(*full, strict=True)))
    if name == "rows":
        pairs = {row["x"]: row for row in done if not row["stream"]}
        found["streamed / in memory"] = {
            str(row["x"]): row["epoch_seconds"] / pairs[row["x"]]["epoch_seconds"]
            for row in done
            if row["stream"] and row["x"] in pairs
        }
    return found


def _plain(slope: Slope) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {**asdict(slope), "se": slope.se if slope.count > 2 else None}


def _efficiency(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    alone = next((row for row in rows if row["processes"] == 1), None)
    if alone is None:
        return {}
    found: dict[str, Any] = {}
    for row in rows:
        if row["processes"] > 1:
            strong = row["batch"] == alone["batch"]
            speed_up = alone["ms_per_step"] / row["ms_per_step"] * row["batch"] / alone["batch"]
            found[row["label"]] = {
                "scaling": "strong" if strong else "weak",
                "speed_up": speed_up,
                "efficiency": speed_up / row["processes"],
                "summed_bytes": row["summed_bytes"],
                "sum_alone_ms": row.get("sum_alone_ms"),
            }
    return found
