"""log p(x) by annealed importance sampling with Hamiltonian moves, and bounds from both sides on simulated data.

All chains of all data move at once. The weights are exact whatever the moves are like: E[w] = p(x), so that the log of
their mean is a stochastic lower bound; chains that run backwards from an exact posterior draw give an upper one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.posterior.bounds import Annealing, Sandwich
from analysis.posterior.hamiltonian import Path, Start, pilot, run
from analysis.posterior.joint import Gaussian, LogJoint
from analysis.posterior.starts import best_of, best_reverse
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike, as_pair
from vae_pyro.densities.programs.simulation import simulate as draw_data
from vae_pyro.densities.walk import bind

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AnnealingConfig:
    """How the chains run.

    Attributes:
        num_chains: for each datum.
        num_temperatures: steps from the start to the joint density.
        num_leapfrog: steps of a Hamiltonian move; there is one move between two temperatures.
        target_acceptance: of the moves, which their step size is tuned to; between 0.6 and 0.9 little is lost.

    References:
        Betancourt, Byrne & Girolami 2014, Optimizing the integrator step size for Hamiltonian Monte Carlo.
        arXiv:1411.6669

    Raises:
        ValueError: fewer than 2 chains, 2 temperatures or 1 leapfrog step, or a target outside (0, 1).
    """

    num_chains: int = 10
    num_temperatures: int = 400
    num_leapfrog: int = 2
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        for name, least in (("num_chains", 2), ("num_temperatures", 2), ("num_leapfrog", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"target_acceptance lies between 0 and 1, got {self.target_acceptance}; 0.8 is usual")


def annealed_importance_sampling(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    start: Start = "guide",
    config: AnnealingConfig | None = None,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> Annealing:
    """Estimate log p(x) along the geometric path from the guide, or the prior, to log p(x, z).

    A pilot run of other chains finds the step size for each datum and temperature; it is then fixed, which keeps the
    weights unbiased. Directions are scaled by the guide's covariance.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`,
            with real-valued latents.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        start: where chains start. The guide is nearer to the posterior, so that a short path does; the prior does not
            depend on the guide.
        config: number of chains, length of the path; ``None`` takes the defaults.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.

    Returns:
        Log weights of each chain and datum, and what the moves were like.

    Raises:
        ValueError: a latent that is not real-valued, an unknown start, or data outside the support of the likelihood.

    References:
        Neal 2001, Annealed importance sampling, Statistics and Computing 11, sec. 2. arXiv:physics/9803008
        Wu et al. 2017, On the quantitative analysis of decoder-based generative models. arXiv:1611.04273
    """
    config = config or AnnealingConfig()
    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    parts = []
    for number, joint in enumerate(joints(pair, split, config.num_chains)):
        with isolated(derive_seed(seed, 1, number)):
            parts.append(anneal(joint, start, config))
    return join(parts)


def bidirectional_monte_carlo(
    pair: PairLike,
    *,
    num_data: int = 25,
    x_like: Split | Tensor | Array | None = None,
    start: Start = "guide",
    config: AnnealingConfig | None = None,
    seed: int = 0,
) -> Sandwich:
    """Bound the error of `annealed_importance_sampling` on data simulated from the model.

    Simulating gives z with x, an exact draw of p(z | x); annealing back from it bounds log p(x) from above.

    Args:
        pair: as there; its model draws the data.
        num_data: data to simulate.
        x_like: some data, which a model that takes no ``size`` requires to draw others.
        start: as there.
        config: as there.
        seed: of all draws.

    Raises:
        ValueError: as there, or ``num_data`` is below 1.

    References:
        Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo.
        arXiv:1511.02543
    """
    like = None if x_like is None else as_split(x_like).fixed(derive_seed(seed, 2))
    return sandwich(pair, num_data, lambda _: (start,), config or AnnealingConfig(), like=like, seed=seed)


def sigmoidal_schedule(num_temperatures: int, sharpness: float = 4.0) -> Array:
    """Temperatures from 0 to 1, closest together at both ends, shape ``(num_temperatures + 1,)``.

    References:
        Wu et al. 2017, On the quantitative analysis of decoder-based generative models (their schedule, with the same
        sharpness as theirs). arXiv:1611.04273
    """
    value = 1 / (1 + np.exp(-np.linspace(-sharpness, sharpness, num_temperatures + 1)))
    return (value - value[0]) / (value[-1] - value[0])


# --- on one block of data, with torch's generator as it stands --------------------------------------------------------


def joints(pair: PairLike, split: Split, num_particles: int) -> Iterator[LogJoint]:
    """The log joint of each block of data that can be held with so many particles.

    Raises:
        ValueError: data outside the support of the likelihood, or latents that are not real-valued.
    """
    data = bind(pair, split, seed=0)
    for rows in data.rows(num_particles):
        x, given = data.batch(rows)
        with isolated(0):
            joint = LogJoint(data.programs, x, **given)
        yield joint


def simulate(
    pair: PairLike,
    num_data: int,
    *,
    like: Split | None = None,
    mask: Tensor | None = None,
    y: Tensor | None = None,
    seed: int = 0,
) -> tuple[Split, dict[str, Tensor]]:
    """Data of the model with the latents that made them, which are exact draws of their posterior.

    Args:
        pair: its model draws the data.
        num_data: how many.
        like: some data, without which a model that takes no ``size`` cannot draw others.
        mask: boolean, ``(num_data, *x_shape)``: what of the simulated data is observed.
        y: classes ``(num_data,)`` that the programs are given.
        seed: of the draws.

    Returns:
        The data, and ``{site: (datum, *event)}``.

    Raises:
        ValueError: ``num_data`` is below 1.
    """
    if num_data < 1:
        raise ValueError(f"num_data must be at least 1, got {num_data}")
    programs = as_pair(pair).programs_of_draws(like, y)
    with isolated(seed):
        drawn = draw_data(programs, num_data, y=y)
    return Split(drawn.x, mask=mask, y=y), drawn.latents


def sandwich(
    pair: PairLike,
    num_data: int,
    starts: Callable[[LogJoint], Sequence[Start | Gaussian]],
    config: AnnealingConfig,
    *,
    like: Split | None = None,
    mask: Tensor | None = None,
    y: Tensor | None = None,
    seed: int,
) -> Sandwich:
    """Annealing forward and back on simulated data; of several starts, the best bounds of each datum.

    Args:
        pair: see `bidirectional_monte_carlo`.
        num_data: likewise.
        starts: gives the starts of a block of data.
        config: see `AnnealingConfig`.
        like: see `simulate`.
        mask: likewise.
        y: likewise.
        seed: of all draws.
    """
    split, latents = simulate(pair, num_data, like=like, mask=mask, y=y, seed=derive_seed(seed, 0))
    forward, backward, first = [], [], 0
    for number, joint in enumerate(joints(pair, split, config.num_chains)):
        exact = joint.flat({name: value[None, first : first + len(joint)] for name, value in latents.items()})
        first += len(joint)
        with isolated(derive_seed(seed, 1, number)):
            ahead, back = [], []
            for start in starts(joint):
                ahead.append(anneal(joint, start, config))
                back.append(anneal_back(joint, exact, start, config, ahead[-1]))
        forward.append(best_of(ahead))
        backward.append(best_reverse(back))
    return Sandwich(join(forward).log_weight, np.concatenate(backward, axis=1))


def anneal(joint: LogJoint, start: Start | Gaussian, config: AnnealingConfig) -> Annealing:
    """Annealed importance sampling of one block of data.

    Args:
        joint: log p(x, z) of the block.
        start: ``guide``, ``prior``, or a Gaussian for each datum.
        config: see `AnnealingConfig`.

    Raises:
        ValueError: an unknown start.
    """
    temperatures = sigmoidal_schedule(config.num_temperatures)
    with torch.no_grad():
        path = Path(joint, start)
        steps = pilot(path, temperatures, config.num_leapfrog, config.target_acceptance)
        log_weight, acceptance = run(path, path.draw(config.num_chains), temperatures, steps, config.num_leapfrog)
    name = start if isinstance(start, str) else "gaussian"
    return Annealing(log_weight.numpy(), acceptance.numpy(), steps.double().cpu().numpy(), temperatures, name)


def anneal_back(
    joint: LogJoint, exact: Tensor, start: Start | Gaussian, config: AnnealingConfig, forward: Annealing
) -> Array:
    """Log weights ``(chain, datum)`` of chains that run from exact posterior draws to the start.

    Each Hamiltonian move is reversible, so the reverse of a move is a move of the same kind.

    Args:
        joint: log p(x, z) of the block.
        exact: draws of p(z | x), shape ``(1, datum, dim)``.
        start: as in `anneal`.
        config: as in `anneal`.
        forward: what `anneal` gave; its step sizes are taken.
    """
    steps = torch.as_tensor(forward.step_size[::-1].copy(), dtype=exact.dtype, device=exact.device)
    z = exact.expand(config.num_chains, -1, -1)
    with torch.no_grad():
        log_weight, _ = run(Path(joint, start), z, forward.temperatures[::-1], steps, config.num_leapfrog)
    return -log_weight.numpy()


def join(parts: list[Annealing]) -> Annealing:
    """Results of several blocks of data as one."""
    log_weight, acceptance, step_size = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("log_weight", "acceptance", "step_size")
    )
    return Annealing(log_weight, acceptance, step_size, parts[0].temperatures, parts[0].start)
