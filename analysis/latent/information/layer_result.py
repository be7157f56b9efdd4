"""The result of `describe_layers`: the part of the KL of each layer of latents, its active units and its collapse."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.information.thresholds import layer_verdict
from analysis.results.estimate import plus_minus
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.information import Bracket, unused
from vae_pyro.core.means import standard_error
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, in nats per datum.

    Attributes:
        name: of its site.
        kl: E_q[log q(z_l | .) - log p(z_l | .)], ``(datum,)``; where ``closed``, the mean of closed conditional KLs.
        kl_mcse: its Monte Carlo standard error, ``(datum,)``; 0 where the KL depends on no draw.
        kl_draws: the same from log densities of the draws alone, ``(datum,)``; over layers it adds up to the
            the pair's log q(z | x) - log p(z), draw by draw.
        kl_draws_mcse: its Monte Carlo standard error.
        conditional: the term is a KL, given the draws of the layers that the guide draws before, see
            `vae_pyro.objectives.divergences.conditional_sites`. Where not, it is this layer's part of the KL, which
            may be negative.
        closed: it is conditional, and that KL has a closed form.
        dimension_kl: the same for each dimension, averaged over draws, ``(datum, latent)``; ``None`` where the
            layer's distributions are not products.
        activity: variance over data of each posterior mean, ``(latent,)``.
        activity_se: its Monte Carlo standard error.
        collapsed: (epsilon, delta)-collapse of each dimension by its KL, ``(latent,)``; all false where not ``closed``,
            or where there is no ``dimension_kl``.
        information: I(x; z_l), of the site that the guide draws first where it is a diagonal Gaussian; else ``None``.
    """

    name: str
    kl: Array
    kl_mcse: Array
    kl_draws: Array
    kl_draws_mcse: Array
    conditional: bool
    closed: bool
    dimension_kl: Array | None
    activity: Array
    activity_se: Array
    collapsed: Array
    information: Bracket | None = None

    @property
    def size(self) -> int:
        """Dimensions."""
        return len(self.activity)

    @property
    def active(self) -> Array:
        """Dimensions whose posterior mean varies over data with a variance above 0.01, boolean ``(latent,)``.

        References:
            Burda et al. 2016, Importance weighted autoencoders, sec. 5. arXiv:1509.00519
        """
        return np.asarray(self.activity > ACTIVE_VARIANCE)

    @property
    def unused(self) -> Array:
        """Dimensions that are collapsed, or neither active nor informative, boolean ``(latent,)``.

        See `analysis.stats.information.unused`.
        """
        return unused(self.collapsed, self.active, self.information)

    @property
    def rate(self) -> float:
        """Mean of ``kl`` over data."""
        return float(self.kl.mean())

    @property
    def rate_mcse(self) -> float:
        """Monte Carlo standard error of `rate`: other draws, the same data."""
        return float(np.sqrt((self.kl_mcse**2).sum()) / len(self.kl))

    @property
    def rate_se(self) -> float:
        """Standard error of `rate`, for another test set and other draws."""
        return standard_error(self.kl)

    def summary(self) -> dict[str, Any]:
        """Scalars for a report."""
        return {
            "latents": self.size,
            "kl": self.rate,
            "kl_mcse": self.rate_mcse,
            "kl_se": self.rate_se,
            "conditional": self.conditional,
            "closed": self.closed,
            "active_units": int(self.active.sum()),
            "collapsed": int(self.collapsed.sum()),
            "unused": int(self.unused.sum()),
            "mutual_information": None if self.information is None else self.information.summary(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class LayersSummary(Result):
    """Information in the layers of latents of a fitted pair.

    Attributes:
        layers: the one that the decoder reads first.
        kl: log q(z | x) - log p(z) of all latent sites together, averaged over draws, nats, ``(datum,)``.
        kl_mcse: its Monte Carlo standard error.
        guide_order: names of the layers, as the guide draws them.
        num_draws: for each datum.
        epsilon: nats below which a dimension counts as collapsed for a datum.
        delta: share of data that may be above it.
        beside: log q - log p of the sites that are no layers, averaged over draws, nats, ``(datum,)``: classes, and
            what is missing of x, which adds 0. ``None`` where there are none.
    """

    layers: tuple[Layer, ...]
    kl: Array
    kl_mcse: Array
    guide_order: tuple[str, ...]
    num_draws: int
    epsilon: float
    delta: float
    beside: Array | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    @property
    def rate(self) -> float:
        """Sum of the layers' KLs and of what is `beside` them, averaged over data."""
        total = sum(layer.rate for layer in self.layers)
        return total if self.beside is None else total + float(self.beside.mean())

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether each layer is used, the lowest first."""
        return tuple(layer_verdict(layer, alone=len(self.layers) == 1) for layer in self.layers)

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, nats per datum."""
        n = len(self.kl)
        return {
            "layers": {layer.name: layer.summary() for layer in self.layers},
            "guide_order": list(self.guide_order),
            "kl": self.rate,
            "kl_draws": float(self.kl.mean()),
            "kl_draws_mcse": float(np.sqrt((self.kl_mcse**2).sum()) / n),
            "kl_beside": None if self.beside is None else float(self.beside.mean()),
            "num_data": n,
            "num_draws": self.num_draws,
            "epsilon": self.epsilon,
            "delta": self.delta,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a layer, by name."""
        import pandas as pd

        rows = [{"layer": layer.name, **layer.summary()} for layer in self.layers]
        for row in rows:
            row["mutual_information"] = (row["mutual_information"] or {}).get("estimate")
        return pd.DataFrame(rows).set_index("layer")

    def plot(self) -> "Figure":
        """Nats of each layer, and of each of its dimensions."""
        from analysis.latent.information.plot import plot_layers

        parts = [None if layer.dimension_kl is None else layer.dimension_kl.mean(0) for layer in self.layers]
        rates, errors = (np.array([getattr(layer, name) for layer in self.layers]) for name in ("rate", "rate_se"))
        return plot_layers([layer.name for layer in self.layers], rates, errors, dimension_kl=parts)

    def __str__(self) -> str:
        lines = [f"KL {self.rate:.3f} nats per datum in {len(self.layers)} layers ({len(self.kl):,} data)"]
        for layer in self.layers:
            kind = (
                "from draws" if not layer.closed else "closed" if layer.rate_mcse == 0 else "closed given other layers"
            )
            kind += "" if layer.conditional else "; a part, not a KL"
            information = "" if layer.information is None else f", I(x; {layer.name}) {layer.information}"
            lines.append(
                f"  {layer.name:<4} {plus_minus(layer.rate, max(layer.rate_mcse, 1e-12))} ({kind}), "
                f"{int(layer.active.sum())} of {layer.size} active, {int(layer.collapsed.sum())} collapsed{information}"
            )
        return screen(lines)
