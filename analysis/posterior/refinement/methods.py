"""How a posterior is drawn from: by the guide, importance, a guide of each datum's own, or annealing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.posterior.annealing import AnnealingConfig, sigmoidal_schedule
from analysis.posterior.hamiltonian import Path, Point, move_chains, passage, pilot
from analysis.posterior.joint import Gaussian, LogJoint, guide_gaussian
from analysis.posterior.local_guides import Family, LocalConfig, optimize_locally
from analysis.posterior.refinement.block import Array, BlockDraws, Proposals, of_guide, systematic
from analysis.stats.importance import log_evidence
from vae_pyro.data.split import Given
from vae_pyro.densities.programs.programs import Programs

# Hamiltonian moves at the posterior: leapfrog steps of each, moves that adapt the step and are dropped, moves for a
# draw, and gain of the adaptation.
_LEAPFROG, _WARMUP, _BETWEEN, _GAIN = 8, 30, 3, 0.2
# Draws of a local guide that are scored at once.
AT_ONCE = 25
# Beyond this, chains have not mixed (Vehtari et al. 2021, arXiv:1903.08008, sec. 4, recommend 1.01 for final results).
_R_HAT, _ENOUGH = 1.05, 100.0


@dataclass(frozen=True)
class Settings:
    """What the methods share.

    Attributes:
        num_draws: draws that are kept for each datum, over all chains.
        num_proposals: independent draws from which weights are estimated.
        local: how a guide is optimised for each datum.
        annealing: number of chains, length of the path.
        random: of resampling.
    """

    num_draws: int
    num_proposals: int
    local: LocalConfig
    annealing: AnnealingConfig
    random: np.random.Generator


def guide(programs: Programs, x: Tensor, given: Given, settings: Settings) -> BlockDraws:
    """Draws of the amortized guide."""
    drawn = of_guide(programs, x, given, settings.num_proposals)
    return BlockDraws(drawn.first(settings.num_draws), drawn.diagnostics())


def importance(programs: Programs, x: Tensor, given: Given, settings: Settings) -> BlockDraws:
    """Draws of the amortized guide, resampled by their importance weights."""
    drawn = of_guide(programs, x, given, settings.num_proposals)
    return BlockDraws(drawn.resampled(settings.num_draws, settings.random), drawn.diagnostics())


def local(programs: Programs, x: Tensor, given: Given, settings: Settings) -> BlockDraws:
    """Draws of a Gaussian optimised for each datum, resampled by their importance weights."""
    joint = LogJoint(programs, x, **given)
    best = _optimised(joint, settings.local)
    parts, weights = [], []
    for first in range(0, settings.num_proposals, AT_ONCE):
        count = min(AT_ONCE, settings.num_proposals - first)
        z = best.shift(torch.randn(count, *best.loc.shape).to(best.loc))
        parts.append(z)
        weights.append((joint.value(z) - best.log_prob(z)).double().cpu().numpy())
    drawn = Proposals(joint.sites(torch.cat(parts)), np.concatenate(weights))
    return BlockDraws(drawn.resampled(settings.num_draws, settings.random), drawn.diagnostics())


@torch.no_grad()
def annealed(programs: Programs, x: Tensor, given: Given, settings: Settings) -> BlockDraws:
    """Chains of Hamiltonian moves, which annealed importance sampling has brought to the posterior.

    Half of the chains are annealed from a Gaussian optimised for each datum, half from the prior, which finds modes
    that the Gaussian misses. Both have weights of the same mean p(x), by which all of them are resampled together; from
    there the chains move at the posterior itself.
    """
    joint, config = LogJoint(programs, x, **given), settings.annealing
    temperatures = sigmoidal_schedule(config.num_temperatures)
    best = _optimised(joint, settings.local)
    weights, places, step = [], [], None
    for start, count in ((best, config.num_chains - config.num_chains // 2), ("prior", config.num_chains // 2)):
        path = Path(joint, start)  # type: ignore[arg-type]
        steps = pilot(path, temperatures, config.num_leapfrog, config.target_acceptance)
        log_weight, _, point = passage(path, path.draw(count), temperatures, steps, config.num_leapfrog)
        weights.append(log_weight.numpy())
        places.append(point.z)
        step = steps[-1] if step is None else step
    of_all, z = np.concatenate(weights), torch.cat(places)
    chosen = torch.as_tensor(systematic(of_all, config.num_chains, settings.random), device=z.device)
    path = Path(joint, best)
    point = path.at(z[chosen, torch.arange(z.shape[1], device=z.device)])
    assert step is not None
    kept, rate = _moved(path, point, step, config, -(-settings.num_draws // config.num_chains))
    chains = torch.stack(kept, 1)  # (chain, draw, datum, dim)
    sites = joint.sites(chains.flatten(0, 1))
    latents = {name: value.unflatten(0, chains.shape[:2]) for name, value in sites.items()}
    log_px, log_px_se = log_evidence(of_all)
    found = {**_mixing(chains), "log_px": log_px, "log_px_se": log_px_se, "acceptance": rate}
    return BlockDraws(latents, found)


def _moved(
    path: Path, point: Point, step: Tensor, config: AnnealingConfig, num_draws: int
) -> tuple[list[Tensor], Array]:
    """Positions ``(chain, datum, dim)`` of so many draws at the posterior, and the acceptance of each datum's moves."""
    log_step = step.log()
    for _ in range(_WARMUP):
        point, rate = move_chains(path, point, 1.0, log_step.exp(), _LEAPFROG)
        log_step = log_step + _GAIN * (rate.mean(0) - config.target_acceptance)
    kept, rates = [], []
    for _ in range(num_draws):
        for _ in range(_BETWEEN):
            point, rate = move_chains(path, point, 1.0, log_step.exp(), _LEAPFROG)
            rates.append(rate.mean(0))
        kept.append(point.z)
    return kept, torch.stack(rates).mean(0).double().cpu().numpy()


def _mixing(chains: Tensor) -> dict[str, Array]:
    """R-hat and effective sample size of the worst latent of each datum, and whether they suffice.

    References:
        Vehtari et al. 2021, Rank-normalization, folding, and localization: an improved R-hat. arXiv:1903.08008
    """
    from arviz_stats.base import array_stats

    values = chains.double().cpu().numpy()
    r_hat = np.asarray(array_stats.rhat(values, chain_axis=0, draw_axis=1)).max(-1)
    size = np.asarray(array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")).min(-1)
    enough = min(_ENOUGH, values.shape[0] * values.shape[1] / 2)
    return {"r_hat": r_hat, "effective_sample_size": size, "reliable": (r_hat <= _R_HAT) & (size >= enough)}


def _optimised(joint: LogJoint, config: LocalConfig) -> Gaussian:
    """A full-rank Gaussian for each datum."""
    family: Family = "full_rank"
    return optimize_locally(joint, guide_gaussian(joint)[0], family, config).gaussian


METHODS: dict[str, Callable[[Programs, Tensor, Given, Settings], BlockDraws]] = {
    "guide": guide,
    "importance": importance,
    "local": local,
    "annealed": annealed,
}
