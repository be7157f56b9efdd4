"""What the decoder makes of places in the latent space: traversals along a latent, interpolations between data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from analysis.draws.codes import posterior_means
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

_PRIOR_DRAWS = 10_000


@dataclass(frozen=True)
class Traversal:
    """Pictures of what each latent does while the others stay.

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
        said = ", ".join(f"{self.latents[i]} ({self.effect[i]:.3g})" for i in order[:5])
        idle = int((self.effect < 0.01 * max(self.effect.max(), 1e-300)).sum())
        return (
            f"traversal of {len(self.latents)} latents over prior quantiles {self.probabilities[0]:.3g} to "
            f"{self.probabilities[-1]:.3g}\n"
            f"  latents that change E[x | z] most (root mean square, units of x): {said}\n"
            f"  {idle} of them change it by less than a hundredth of the first"
        )

    def summary(self) -> dict[str, Any]:
        """Latents and their effects, in JSON's types."""
        return {"latents": [int(j) for j in self.latents], "effect": [float(e) for e in self.effect]}


@dataclass(frozen=True)
class Interpolation:
    """Pictures along a path between the codes of two data.

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
        y: class that decoder and encoder read; wanted where the structure has classes, and nowhere else.
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


def linear(a: Array, b: Array, fractions: Array) -> Array:
    """The straight path between points, ``(pair, step, latent)``, from two arrays ``(pair, latent)``."""
    t = np.asarray(fractions, dtype=np.float64)[None, :, None]
    return (1 - t) * a[:, None] + t * b[:, None]


def spherical(a: Array, b: Array, fractions: Array) -> Array:
    """The great-circle path, which keeps away from the origin, where a normal prior in many dimensions has no mass.

    Args:
        a: start points, ``(pair, latent)``.
        b: end points, same shape.
        fractions: of the angle, ``(step,)``.

    Returns:
        ``(pair, step, latent)``, float64; the straight path where the directions are the same or a point is the origin.

    Raises:
        ValueError: points in opposite directions, between which no great circle is shortest (the message names them).

    References:
        Shoemake 1985, Animating rotation with quaternion curves, sec. 3.3. doi:10.1145/325165.325242
        White 2016, Sampling generative networks, sec. 2.1. arXiv:1609.04468
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    t = np.asarray(fractions, dtype=np.float64)[None, :, None]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0)
    angle = np.arccos(np.clip(cosine, -1, 1))
    opposite = np.flatnonzero((lengths > 0) & (np.pi - angle < 1e-6))
    if len(opposite):
        raise ValueError(f"pair {int(opposite[0])} has codes in opposite directions; choose kind='linear'")
    straight = (lengths == 0) | (angle < 1e-6)
    omega = np.where(straight, 1.0, angle)[:, None, None]
    arc = (np.sin((1 - t) * omega) * a[:, None] + np.sin(t * omega) * b[:, None]) / np.sin(omega)
    return np.where(straight[:, None, None], linear(a, b, fractions), arc)


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
        y: class of all pairs, which decoder and encoder read; wanted where the structure has classes, and nowhere else.
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
        raise ValueError(f"pairs of data wanted, got {len(start)} and {len(end)}")
    fractions = np.linspace(0, 1, steps)
    z = paths[kind](start, end, fractions)
    return Interpolation(fractions, z, _pictures(vae, z, y), kind)
