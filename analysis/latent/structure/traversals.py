"""The decoder over the latent space: traversals along one latent, interpolations between data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from analysis.draws.codes import posterior_means
from analysis.latent.structure.paths import linear, spherical
from analysis.results.result import Result
from analysis.results.text import screen
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE
from vae_pyro.models.vae import VAE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

_PRIOR_DRAWS = 10_000


@dataclass(frozen=True, eq=False, repr=False)
class Traversal(Result):
    """Decoded expectations while one latent moves and the others stay.

    Attributes:
        latents: numbers of the latents that move, ``(latent,)``.
        probabilities: at which quantiles of its prior marginal a latent is put, ``(step,)``.
        values: those quantiles, ``(latent, step)``.
        start: where the other latents stay, ``(latent_dim,)``.
        images: E[x | z], ``(latent, step, *x_shape)``.
    """

    latents: Array
    probabilities: Array
    values: Array
    start: Array
    images: Array

    @property
    def effect(self) -> Array:
        """Root mean square change of an element of E[x | z] around its mean over the steps, ``(latent,)``.

        In the units of x; 0 for a latent that the decoder does not use.
        """
        moved = self.images.astype(np.float64) - self.images.mean(1, keepdims=True, dtype=np.float64)
        return np.sqrt((moved.reshape(len(moved), -1) ** 2).mean(1))

    def __str__(self) -> str:
        order = np.argsort(-self.effect)
        most = ", ".join(f"{self.latents[i]} ({self.effect[i]:.3g})" for i in order[:5])
        idle = int((self.effect < 0.01 * max(self.effect.max(), 1e-300)).sum())
        return screen(
            [
                f"traversal of {len(self.latents)} latents over prior quantiles {self.probabilities[0]:.3g} to "
                f"{self.probabilities[-1]:.3g}",
                f"  latents that change E[x | z] most (root mean square, units of x): {most}",
                f"  {idle} of them change it by less than a hundredth of the first",
            ]
        )

    def summary(self) -> dict[str, Any]:
        """Latents and their effects, in JSON's types."""
        return {"latents": [int(j) for j in self.latents], "effect": [float(e) for e in self.effect]}

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a latent, by its number: its effect and its value at each step."""
        import pandas as pd

        columns = {"effect": self.effect} | {
            f"quantile_{p:g}": self.values[:, step] for step, p in enumerate(self.probabilities)
        }
        return pd.DataFrame(columns, index=pd.Index(self.latents, name="latent"))

    def plot(self, *, max_latents: int = 10, bounds: tuple[float, float] | None = None) -> "Figure":
        """E[x | z] along the latents that change it most.

        Args:
            max_latents: shown at most.
            bounds: of the grey levels of images, best the range of the data; that of the expectations if not given.
        """
        from analysis.latent.structure.plot import plot_traversal

        order = np.argsort(-self.effect, kind="stable")[:max_latents]
        names = [f"z[{self.latents[i]}]" for i in order]
        return plot_traversal(self.images[order], self.probabilities, names, bounds=bounds)


@dataclass(frozen=True, eq=False, repr=False)
class Interpolation(Result):
    """Decoded expectations along a path between the codes of two data.

    Attributes:
        fractions: of the way, ``(step,)``, from 0 to 1.
        z: places, ``(pair, step, latent)``.
        images: E[x | z], ``(pair, step, *x_shape)``.
        kind: ``linear`` or ``spherical``.
    """

    fractions: Array
    z: Array
    images: Array
    kind: str

    @property
    def effect(self) -> Array:
        """Root mean square change of an element of E[x | z] from end to end, ``(pair,)``, in the units of x."""
        moved = self.images[:, -1].astype(np.float64) - self.images[:, 0]
        return np.sqrt((moved.reshape(len(moved), -1) ** 2).mean(1))

    def summary(self) -> dict[str, Any]:
        """Kind, steps and effects, in JSON's types."""
        return {"kind": self.kind, "steps": len(self.fractions), "effect": [float(e) for e in self.effect]}

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a pair and step: the place."""
        import pandas as pd

        pair, step = np.indices(self.z.shape[:2])
        index = pd.MultiIndex.from_arrays([pair.ravel(), self.fractions[step.ravel()]], names=["pair", "fraction"])
        names = [f"z[{j}]" for j in range(self.z.shape[-1])]
        return pd.DataFrame(self.z.reshape(-1, self.z.shape[-1]), columns=names, index=index)

    def plot(self, *, bounds: tuple[float, float] | None = None) -> "Figure":
        """E[x | z] along each path; ``bounds`` as in `Traversal.plot`."""
        from analysis.latent.structure.plot import plot_interpolation

        return plot_interpolation(self.images, bounds=bounds)

    def __str__(self) -> str:
        ends = ", ".join(f"{effect:.3g}" for effect in self.effect[:5])
        return screen(
            [
                f"{self.kind} interpolation between {len(self.images)} pairs of data in {len(self.fractions)} steps",
                f"  change of E[x | z] from end to end (root mean square, units of x): {ends}",
            ]
        )


def _prior_quantiles(vae: VAE, probabilities: Array, seed: int, y: int | None) -> tuple[Array, Array]:
    """Quantiles of each latent's marginal, ``(latent, step)``, and the prior mean: closed for a standard normal."""
    from scipy.stats import norm

    if vae.model.standard_normal:
        return np.tile(norm.ppf(probabilities), (vae.config.latent_dim, 1)), np.zeros(vae.config.latent_dim)
    with torch.no_grad(), isolated(derive_seed(seed, 2)):
        classes = None if y is None else torch.full((_PRIOR_DRAWS,), y, device=vae.device)
        draws = vae.model.draw(_PRIOR_DRAWS, classes)[0].double().cpu().numpy()
    return np.quantile(draws, probabilities, axis=0).T, draws.mean(0)


def _require_class(vae: VAE, y: int | None) -> None:
    """Refuse a class where there are none, and to decode without one where there are, before anything is computed."""
    if y is None and vae.num_classes:
        raise ValueError(f"this decoder reads a class: give y, from 0 to {vae.num_classes - 1}")
    if y is not None and not (isinstance(y, int | np.integer) and 0 <= y < vae.num_classes):
        known = (
            f"from 0 to {vae.num_classes - 1}" if vae.num_classes else "of which this structure has none; leave y out"
        )
        raise ValueError(f"y is the number of a class, {known}; got {y!r}")


def _codes(vae: VAE, x: Any, y: int | None, seed: int) -> Array:
    """Posterior means ``(datum, latent)``, of data that are all given the class ``y``."""
    return posterior_means(vae, x, seed=seed, y=None if y is None else torch.full((len(x),), y))


def _pictures(vae: VAE, z: Array, y: int | None) -> Array:
    """E[x | z], or E[x | z, y], of ``(*batch, latent)`` in bounded memory."""
    flat = z.reshape(-1, z.shape[-1])
    size = max(ELEMENTS_AT_ONCE // int(np.prod(vae.config.x_shape)), 1)
    parts = []
    with torch.no_grad():
        for start in range(0, len(flat), size):
            some = torch.as_tensor(flat[start : start + size], dtype=vae.dtype, device=vae.device)
            classes = None if y is None else torch.full((len(some),), y)
            parts.append(vae.expectation(some, y=classes).cpu().numpy())
    return np.concatenate(parts).reshape(*z.shape[:-1], *vae.config.x_shape)


def traverse(
    vae: VAE,
    x: Any = None,
    *,
    latents: Sequence[int] | None = None,
    probabilities: Sequence[float] = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99),
    y: int | None = None,
    seed: int = 0,
) -> Traversal:
    """Move one latent at a time over the quantiles of its prior, and decode.

    Args:
        vae: fitted.
        x: a datum, ``x_shape`` or ``(1, *x_shape)``, at whose posterior mean the other latents stay; ``None`` keeps
            them at the prior mean.
        latents: which ones move; ``None`` moves all.
        probabilities: in (0, 1), increasing.
        y: class that decoder and encoder read; required where the structure has classes, and nowhere else.
        seed: of the 10,000 draws by which a prior other than the standard normal has quantiles, and of those by which
            a flow posterior has a mean.

    Raises:
        ValueError: a latent, class or probability that there is not, latents that are no integers, or several data.
    """
    steps, dimension = np.asarray(probabilities, dtype=np.float64), vae.config.latent_dim
    if steps.ndim != 1 or len(steps) == 0 or not ((steps > 0) & (steps < 1)).all() or (np.diff(steps) <= 0).any():
        raise ValueError(f"probabilities are increasing numbers between 0 and 1, got {list(probabilities)}")
    moving = np.arange(dimension) if latents is None else np.asarray(latents)
    integers = moving.dtype.kind in "iu" and moving.ndim == 1  # 1.7 would move latent 1
    if not integers or len(moving) == 0 or moving.min() < 0 or moving.max() >= dimension:
        raise ValueError(f"latents are numbers from 0 to {dimension - 1}, got {moving.tolist()}")
    moving = moving.astype(np.int64)
    _require_class(vae, y)
    quantiles, start = _prior_quantiles(vae, steps, seed, y)
    if x is not None:
        x = torch.as_tensor(x)
        x = x[None] if tuple(x.shape) == vae.config.x_shape else x
        if len(x) != 1:
            raise ValueError(f"a traversal starts at one datum, got {len(x)}; pass x[:1]")
        start = _codes(vae, x, y, seed)[0]
    z = np.tile(start, (len(moving), len(steps), 1))
    for row, j in enumerate(moving):
        z[row, :, j] = quantiles[j]
    return Traversal(moving, steps, quantiles[moving], start, _pictures(vae, z, y))


def interpolate(
    vae: VAE,
    a: Any,
    b: Any,
    *,
    steps: int = 9,
    kind: Literal["linear", "spherical"] = "linear",
    y: int | None = None,
    seed: int = 0,
) -> Interpolation:
    """Decode places between the posterior means of pairs of data.

    Args:
        vae: fitted.
        a: data, ``(pair, *x_shape)``.
        b: as many others.
        steps: places on the way, both ends included; at least 2.
        kind: ``linear``, or ``spherical`` along a great circle.
        y: class of all pairs, which decoder and encoder read; required where the structure has classes, else refused.
        seed: of the draws by which a flow posterior has a mean.

    Raises:
        ValueError: too few steps, another kind, a class that there is not, or different numbers of data; see also
            `spherical`.
    """
    if steps < 2:
        raise ValueError(f"an interpolation has at least its two ends, got steps={steps}")
    paths = {"linear": linear, "spherical": spherical}
    if kind not in paths:
        raise ValueError(f"unknown kind {kind!r} of interpolation; choose from {', '.join(paths)}")
    _require_class(vae, y)
    start, end = _codes(vae, a, y, seed), _codes(vae, b, y, seed)
    if len(start) != len(end):
        raise ValueError(f"pairs of data are required, got {len(start)} and {len(end)}")
    fractions = np.linspace(0, 1, steps)
    z = paths[kind](start, end, fractions)
    return Interpolation(fractions, z, _pictures(vae, z, y), kind)
