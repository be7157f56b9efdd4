"""Held-out evaluation of the runs of an experiment, each in the worker that fitted it, and the collected results."""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from analysis.density.elpd import Estimates, estimates
from analysis.draws.weights import Fingerprint, Weighed, weigh
from analysis.experiments import held_out_file
from analysis.experiments.comparison.runs import Gaps, MeasuredRun
from analysis.experiments.held_out import HeldOut
from analysis.posterior.gaps.decomposition import inference_gaps
from vae_pyro.core.files import RunError, read_json, read_tensors, write_json
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.split import Split, visible
from vae_pyro.densities.walk import block_sizes, pieces
from vae_pyro.evaluation.evaluation import activity_of
from vae_pyro.experiments.folder import Experiment, recorded_as
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder
from vae_pyro.runs.weights import weights

type Array = np.ndarray[Any, Any]
type SplitName = Literal["train", "validation", "test"]

GAPS_FILE = "gaps.json"
_GAPS_STREAM, _CODES_STREAM = 1, 2
_ANNEALING_DRAWS = 500


@recorded_as("analysis.held_out.measure_run")
def measure_run(
    folder: RunFolder,
    vae: VAE,
    data: Dataset,
    *,
    split: SplitName = "test",
    num_draws: int = 500,
    seed: int = 0,
    limit: int | None = None,
) -> HeldOut:
    """Held-out results of a finished run, written to ``held_out.nc`` in its folder, whole or not at all.

    A file that was computed from the same weights, observed values, draws and seed is read instead of computed again,
    so that an interrupted experiment can continue by calling this for every run.

    Args:
        folder: folder of the run, whose ``model.safetensors`` holds the weights of ``vae``.
        vae: the fitted VAE.
        data: the data that it was fitted on.
        split: the part of them to evaluate.
        num_draws: K, draws for each datum, at least 25. The same K, seed and data give every model the same noise.
        seed: seed of the draws.
        limit: evaluate only this many data, the first of the split; ``None`` evaluates all.

    Returns:
        The content of the file.

    Raises:
        RunError: the run has no finished weights, or they are damaged.
        ValueError: the VAE is not the one of the folder, an unknown split, a limit below 1, fewer than 25 draws, data
            outside the support of the likelihood, or an importance weight that is NaN or +inf (a diverged fit).
    """
    chosen = _chosen(data, split, limit)
    _require_own(folder, vae)
    fingerprint = _fingerprint(chosen, vae)
    inputs = {
        "weights": folder.weights_digest(),
        "values": fingerprint,
        "ids": hashlib.sha256(_ids(chosen).astype("<i8").tobytes()).hexdigest(),
        "space": chosen.space,
        "of": vae.target(chosen),
        "split": split,
        "num_draws": num_draws,
        "seed": seed,
    }
    try:
        held_out, stored = held_out_file.read(folder.held_out_file)
    except RunError:  # absent or damaged: computed again
        stored = {}
    if stored == inputs:
        return held_out
    computed = _measure(folder, vae, chosen, fingerprint, num_draws, seed)
    with folder.writing():
        held_out_file.write(computed, inputs, folder.held_out_file)
    return computed


def read_held_out(folder: RunFolder) -> HeldOut:
    """The results that `measure_run` wrote into a run folder.

    Raises:
        RunError: the file is absent, truncated, foreign, or was changed after it was written.
    """
    return held_out_file.read(folder.held_out_file)[0]


@recorded_as("analysis.measurement.measure")
def measure(
    folder: RunFolder,
    vae: VAE,
    data: Dataset,
    *,
    split: SplitName = "test",
    num_draws: int = 500,
    seed: int = 0,
    limit: int | None = None,
    num_gap_data: int = 0,
) -> None:
    """Write the results that a comparison uses into the folder of a run; files that are up to date are kept.

    This is the ``finish`` of `vae_pyro.experiments.running.run_experiment`, with its options bound by
    `functools.partial`: with the same options all runs are evaluated on the same data with the same noise.

    Args:
        folder: folder of the run, which receives ``held_out.nc`` and, with gaps, ``gaps.json``.
        vae: the fitted VAE.
        data: the data that it was fitted on.
        split: see `measure_run`; likewise ``num_draws``, ``seed`` and ``limit``.
        num_gap_data: number of data whose approximation and amortization gaps are estimated, the same for every run; 0
            leaves the gaps out. Each datum takes an optimisation and an annealing of its own, about a second.

    Raises:
        ValueError: see `measure_run` and `analysis.inference_gaps`.
        RunError: see `measure_run`.
    """
    measure_run(folder, vae, data, split=split, num_draws=num_draws, seed=seed, limit=limit)
    if not num_gap_data:
        (folder.path / GAPS_FILE).unlink(missing_ok=True)
        return
    inputs = {
        "weights": folder.weights_digest(),
        "split": split,
        "limit": limit,
        "seed": seed,
        "num_draws": num_draws,
        "num_gap_data": num_gap_data,
    }
    try:
        if read_json(folder.path / GAPS_FILE)["made_of"] == inputs:
            return
    except RunError:
        pass
    found = inference_gaps(
        vae,
        _chosen(data, split, limit),
        num_data=num_gap_data,
        num_draws=max(num_draws, _ANNEALING_DRAWS),
        num_simulated=0,
        seed=derive_seed(seed, _GAPS_STREAM),
    )
    with folder.writing():
        write_json(folder.path / GAPS_FILE, {"made_of": inputs, "gaps": vars(Gaps.of(found))})


def gather(experiment: Experiment) -> tuple[list[MeasuredRun], dict[tuple[str, int], list[dict[str, float]]]]:
    """The results of all runs of an experiment that are done, and the history of each by label and seed.

    Raises:
        ValueError: no run is done.
        RunError: the file of `measure` is absent from a run or damaged.
    """
    measured, histories = [], {}
    for trial in experiment.having("done"):
        variant, folder = trial.variant, trial.folder
        file = folder.path / GAPS_FILE
        gaps = Gaps(**read_json(file)["gaps"]) if file.exists() else None
        measured.append(
            MeasuredRun(variant.label, variant.objective, variant.grid, trial.seed, read_held_out(folder), gaps)
        )
        histories[variant.label, trial.seed] = folder.read_history()
    if not measured:
        raise ValueError(
            f"no run of {str(experiment.path)!r} is done; continue it with the same call of run_experiment\n"
            f"{experiment}"
        )
    return measured, histories


def _chosen(data: Dataset, split: SplitName, limit: int | None) -> Split:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be a number of data of at least 1, got {limit}; pass None to evaluate all")
    chosen = data.split(split)
    return chosen if limit is None else chosen.take(slice(0, limit))


class _Moments(NamedTuple):
    estimates: Estimates
    elbo_mcse: Array
    kl: Array
    kl_mcse: Array
    reconstruction: Array


def _require_own(folder: RunFolder, vae: VAE) -> None:
    """Refuse a VAE whose weights are not those of the folder."""
    if not folder.model_file.exists():
        raise RunError(f"the run in {str(folder.path)!r} has no finished weights; continue it before it is measured")
    stored, _ = read_tensors(folder.model_file, "model")
    own = {name: tensor.cpu() for name, tensor in weights(vae).items()}
    different = set(stored) ^ set(own) | {
        name
        for name in set(stored) & set(own)
        if stored[name].dtype != own[name].dtype or not _same(stored[name], own[name])
    }
    if different:
        raise ValueError(
            f"the VAE is not the one in {str(folder.model_file)!r}: {', '.join(sorted(different)[:4])} differ; pass "
            "folder.load_model()"
        )


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return bool(torch.equal(torch.nan_to_num(first), torch.nan_to_num(second)))  # a NaN is not equal to itself


def _ids(split: Split) -> Array:
    return np.asarray(split.ids.cpu().numpy())


def _pieces(split: Split, vae: VAE) -> Iterator[slice]:
    return pieces(len(split), block_sizes(len(split), 1, vae.width(split))[0])


def _fingerprint(split: Split, vae: VAE) -> str:
    digest = Fingerprint()
    for rows in _pieces(split, vae):
        digest.update(visible(*split.batch(rows, vae.dtype)).cpu().numpy())
    return digest.value


def _measure(folder: RunFolder, vae: VAE, split: Split, fingerprint: str, num_draws: int, seed: int) -> HeldOut:
    def reduce(block: Weighed) -> _Moments:
        elbo_mcse = _mean(block.log_weight)[1]
        kl, kl_mcse = _mean(block.log_likelihood - block.log_weight)
        return _Moments(estimates(block.log_weight), elbo_mcse, kl, kl_mcse, block.log_likelihood.mean(0))

    parts = weigh(vae, split, reduce, num_draws=num_draws, seed=seed)
    results = {
        name: np.concatenate([getattr(part.estimates, name) for part in parts])
        for name in ("log_px", "log_px_mcse", "elbo", "rise", "smoothed", "upper", "pareto_k")
    }
    results |= {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("elbo_mcse", "kl", "kl_mcse", "reconstruction")
    }
    codes, spread = _codes(vae, split, num_draws, seed)
    closed = vae.guide.closed_moments
    noise = np.zeros_like(spread) if closed else spread**2
    activity, activity_se = activity_of(codes.astype(np.float64), noise, num_draws)
    try:
        history = folder.read_history()
    except RunError:
        history = []
    return HeldOut(
        **results,
        activity=activity,
        activity_se=activity_se,
        codes=codes,
        code_kl=_code_kl(vae, codes, spread),
        ids=_ids(split),
        num_draws=num_draws,
        space=str(split.space),
        measure=vae.measure,
        of=vae.target(split),
        fingerprint=fingerprint,
        epochs=len(history),
        seconds=float(sum(row.get("seconds", np.nan) for row in history)) if history else float("nan"),
    )


def _mean(values: Array) -> tuple[Array, Array]:
    """Mean over particles and its Monte Carlo standard error."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def _codes(vae: VAE, split: Split, num_draws: int, seed: int) -> tuple[Array, Array]:
    """Mean and standard deviation of q(z | x), each ``(datum, latent)``."""
    means, spreads = [], []
    for index, rows in enumerate(_pieces(split, vae)):
        x, given = split.batch(rows, vae.dtype)
        mean, sd = vae.posterior_moments(x, **given, num_draws=num_draws, seed=derive_seed(seed, _CODES_STREAM, index))
        means.append(mean.cpu().numpy())
        spreads.append(sd.cpu().numpy().astype(np.float64))
    return np.concatenate(means), np.concatenate(spreads)


def _code_kl(vae: VAE, codes: Array, spread: Array) -> Array:
    # Of a structure with more sites q(z | x) may be a mixture of the family's members, and p(z) one over p(z | z2).
    if not (vae.guide.closed_moments and vae.guide.posterior.gaussian and vae.model.standard_normal):
        return np.full(codes.shape[1], np.nan)
    loc = codes.astype(np.float64)
    return np.asarray((0.5 * (loc**2 + spread**2 - 1) - np.log(spread)).mean(0))
