"""What was found out about the programs of a pair, and which diagnostics are open to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from analysis.diagnostics.config import ReportConfig
from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, why_not
from analysis.results.text import screen
from vae_pyro.core.isolation import isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike
from vae_pyro.densities.walk import bind


@dataclass(frozen=True)
class PairCheck:
    """What is known of a pair with some data.

    Attributes:
        facts: sites, plate, shapes, type, ways of running and modes, by name.
        diagnostics: by name, why each does not apply; empty where it does.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    diagnostics: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[str]:
        """Names of the diagnostics that apply."""
        return [name for name, reason in self.diagnostics.items() if not reason]

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts.items()]
        lines.append(f"{'diagnostics':<{width}}  {', '.join(self.open) or 'none'}")
        closed = [f"  not {name}: {reason}" for name, reason in self.diagnostics.items() if reason]
        return screen([*lines, *closed])

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        return str(Markup("<pre>{}</pre>").format(str(self)))


def check_pair(
    pair: PairLike, x: Split | Tensor | Any, *, mask: Tensor | None = None, y: Any = None, seed: int = 0
) -> PairCheck:
    """Find out about a pair with some data, without an estimate.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)``; the contract is that of `vae_pyro.Pair`.
        x: ``(datum, *x_shape)``.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.
        seed: of the random observations of a split.

    Raises:
        ValueError: the programs cannot be run on these data, or can be read in two ways.
    """
    data = bind(pair, x, seed=seed, mask=mask, y=y)
    programs, split = data.programs, data.split
    with isolated(0):
        rows, given = data.batch(slice(0, 2) if programs.amortized else slice(None))
        draws = programs.draw(rows, 1, **given).kinds
    kinds = {"code": "continuous", "class": "discrete", "data": "what is missing of x"}
    latents = [f"{name} ({kinds[kind]})" for name, kind in draws.items()]
    summed = [f"{name} ({len(values)} values, summed out)" for name, values in programs.summed.items()]
    takes = [name for name in ("size", "mask") if getattr(programs.of_model, name)]
    takes += [f"{programs.of_model.y} (as y)" if programs.of_model.y != "y" else "y"] if programs.of_model.y else []
    facts = {
        "data": f"{len(data):,} of shape {split.x_shape}, {data.dtype} on {data.device}"
        + (", some elements not observed" if split.mask is not None else ""),
        "observed sites": ", ".join(programs.observed_names) + _of_x(programs.data_sites, programs.observed_names),
        "latent sites": ", ".join([*latents, *summed]) or "none",
        "plate over data": programs.plate or "data",
        "model takes": ", ".join(["x", *takes]),
        "particles": f"model: {programs.model_way}; guide: {programs.guide_way}",
        "guide": "amortized" if programs.amortized else "not amortized: for these rows alone, in this order",
        "mode": f"{len(programs.state.modules) or 'no'} modules, "
        + (
            "in training mode; estimates put them into evaluation mode"
            if programs.state.training
            else "in evaluation mode"
        ),
    }
    context = Context(data.pair, split, as_split(x, mask, y), config=ReportConfig(), seed=seed)
    reasons = {}
    for name in DIAGNOSTICS:
        diagnostic = DIAGNOSTICS[name]()
        missing = context.lacks(diagnostic.requires)
        reasons[name] = f"requires {missing}" if missing else why_not(diagnostic, context) or ""
    return PairCheck(facts, reasons)


def _of_x(parts: tuple[str, ...], observed: tuple[str, ...]) -> str:
    if not parts:
        return "; none of them holds x as it was given"
    return "" if parts == observed else f"; x is {' and '.join(parts)}"
