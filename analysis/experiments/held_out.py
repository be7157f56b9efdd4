"""What one run predicts of held-out data, datum by datum, kept beside its weights so that runs can be compared."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr

from analysis.density.result import ELPD
from analysis.draws.datatree import write_netcdf
from analysis.draws.weights import Fingerprint, Weighed, weigh
from analysis.stats.importance import Estimates, estimates
from analysis.stats.pareto_smoothing import good_k
from vae_pyro.core.files import RunError, read_tensors
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.split import Split, visible
from vae_pyro.densities.measure import Measure
from vae_pyro.densities.walk import block_sizes, pieces
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE, activity_of
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder, weights

type Array = np.ndarray[Any, Any]
type SplitName = Literal["train", "validation", "test"]

_FORMAT = "vae_pyro held out 1"
_CODES_STREAM = 2


@dataclass(frozen=True)
class HeldOut:
    """Held-out figures of one run for each datum, nats, float64, ``(datum,)`` where nothing else is said.

    All of them come from the same draws of the guide: ``elbo = reconstruction - kl``, draw by draw.

    Attributes:
        log_px: log p(x) by importance sampling, with ``log_px_mcse``, its Monte Carlo standard error.
        elbo: mean log weight, with ``elbo_mcse``.
        kl: E_q[log q(z | x) - log p(z)], with ``kl_mcse``.
        reconstruction: E_q[log p(x | z)].
        pareto_k: tail index of the importance weights.
        rise: see `analysis.density.elpd.ELPD`; likewise ``smoothed`` and ``upper``.
        activity: variance over data of the posterior mean of each latent, ``(latent,)``, with ``activity_se``, its
            Monte Carlo standard error: 0 where the mean is closed.
        codes: posterior means, ``(datum, latent)``, in the type of the weights.
        code_kl: mean over data of KL(q(z_j | x) || p(z_j)), ``(latent,)``, of a Gaussian posterior's marginals and a
            standard normal prior; NaN where it is not closed.
        ids: of the data.
        num_draws: K, draws for each datum.
        space: in words, what the data are.
        measure: ``probability``, ``probability given the total`` of x, or ``density``.
        fingerprint: of the observed values.
        epochs: of the fit, as its history tells; 0 where the run has none.
        seconds: of the fit, the sum over its history; NaN where the run has none.
        of: what log p(x) is of, see `analysis.density.elpd.ELPD`; ``None`` in files of before it was kept.
    """

    log_px: Array
    log_px_mcse: Array
    elbo: Array
    elbo_mcse: Array
    kl: Array
    kl_mcse: Array
    reconstruction: Array
    pareto_k: Array
    rise: Array
    smoothed: Array
    upper: Array
    activity: Array
    activity_se: Array
    codes: Array
    code_kl: Array
    ids: Array
    num_draws: int
    space: str = "the values as given"
    measure: Measure | None = None
    fingerprint: str = ""
    epochs: int = 0
    seconds: float = float("nan")
    of: str | None = None

    def __len__(self) -> int:
        return len(self.log_px)

    @property
    def elpd(self) -> ELPD:
        """The same log p(x) as `analysis.density.elpd.elpd_of` has it."""
        return ELPD(
            pointwise=self.log_px,
            pointwise_mcse=self.log_px_mcse,
            pareto_k=self.pareto_k,
            num_draws=self.num_draws,
            rise=self.rise,
            smoothed=self.smoothed,
            elbo=self.elbo,
            upper=self.upper,
            ids=self.ids,
            space=self.space,
            measure=self.measure,
            fingerprint=self.fingerprint,
            of=self.of,
        )

    @property
    def active(self) -> Array:
        """Latents whose posterior mean varies over data with a variance above 0.01; boolean, ``(latent,)``.

        References:
            Burda et al. 2016, Importance weighted autoencoders, sec. 5. arXiv:1509.00519
        """
        return np.asarray(self.activity > ACTIVE_VARIANCE)

    @property
    def share_bad(self) -> float:
        """Share of data whose k-hat is too large, or could not be had."""
        return float((~(self.pareto_k <= good_k(self.num_draws))).mean())


class _Moments(NamedTuple):
    estimates: Estimates
    elbo_mcse: Array
    kl: Array
    kl_mcse: Array
    reconstruction: Array


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
    """Held-out figures of a finished run, written to ``held_out.nc`` in its folder, whole or not at all.

    A file that was made of the same weights, observed values, draws and seed is read and not made again, so that a
    crashed experiment can go on by calling this for every run.

    Args:
        folder: of the run, whose ``model.safetensors`` holds the weights of ``vae``.
        vae: the fitted VAE.
        data: what it was fitted on.
        split: which part of it to measure.
        num_draws: K, draws for each datum, at least 25. The same K, seed and data give every model the same noise.
        seed: of the draws.
        limit: take the first so many data of the split; ``None`` takes all.

    Returns:
        What the file holds.

    Raises:
        RunError: the run has no finished weights, or they are damaged.
        ValueError: the VAE is not the one of the folder, an unknown split, a limit below 1, fewer than 25 draws, data
            outside the support of the likelihood, or a weight that is NaN or +inf, as of a fit that diverged.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is a number of data, at least 1, got {limit}")
    chosen = data.split(split)
    if limit is not None:
        chosen = chosen.take(slice(0, limit))
    _require_own(folder, vae)
    fingerprint = _fingerprint(chosen, vae)
    made_of = {
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
        held_out, stored = _read(folder.held_out_file)
    except RunError:  # absent or damaged: made again
        stored = {}
    if stored == made_of:
        return held_out
    made = _measure(folder, vae, chosen, fingerprint, num_draws, seed)
    _write(made, made_of, folder.held_out_file)
    return made


def read_held_out(folder: RunFolder) -> HeldOut:
    """What `measure_run` wrote into a run folder.

    Raises:
        RunError: the file is absent, truncated, foreign, or was changed after it was written.
    """
    return _read(folder.held_out_file)[0]


def _require_own(folder: RunFolder, vae: VAE) -> None:
    """Refuse a VAE whose weights are not those of the folder."""
    if not folder.model_file.exists():
        raise RunError(f"the run in {str(folder.path)!r} has no finished weights; finish it before it is measured")
    stored, _ = read_tensors(folder.model_file, "model")
    own = {name: tensor.cpu() for name, tensor in weights(vae).items()}
    odd = set(stored) ^ set(own) | {
        name
        for name in set(stored) & set(own)
        if stored[name].dtype != own[name].dtype or not _same(stored[name], own[name])
    }
    if odd:
        raise ValueError(
            f"the VAE is not the one in {str(folder.model_file)!r}: {', '.join(sorted(odd)[:4])} differ; pass "
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
    figures = {
        name: np.concatenate([getattr(part.estimates, name) for part in parts])
        for name in ("log_px", "log_px_mcse", "elbo", "rise", "smoothed", "upper", "pareto_k")
    }
    figures |= {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("elbo_mcse", "kl", "kl_mcse", "reconstruction")
    }
    codes, spread = _codes(vae, split, num_draws, seed)
    closed = vae.guide.posterior.closed_moments
    noise = np.zeros_like(spread) if closed else spread**2
    activity, activity_se = activity_of(codes.astype(np.float64), noise, num_draws)
    try:
        history = folder.read_history()
    except RunError:
        history = []
    return HeldOut(
        **figures,
        activity=activity,
        activity_se=activity_se,
        codes=codes,
        code_kl=_code_kl(vae, codes, spread),
        ids=_ids(split),
        num_draws=num_draws,
        space=split.space,
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
    """Mean and standard deviation of q(z | x), each ``(datum, latent)``, block by block."""
    means, spreads = [], []
    for index, rows in enumerate(_pieces(split, vae)):
        x, given = split.batch(rows, vae.dtype)
        mean, sd = vae.posterior_moments(x, **given, num_draws=num_draws, seed=derive_seed(seed, _CODES_STREAM, index))
        means.append(mean.cpu().numpy())
        spreads.append(sd.cpu().numpy().astype(np.float64))
    return np.concatenate(means), np.concatenate(spreads)


def _code_kl(vae: VAE, codes: Array, spread: Array) -> Array:
    if not (vae.guide.posterior.gaussian and vae.model.prior.standard_normal):
        return np.full(codes.shape[1], np.nan)
    loc = codes.astype(np.float64)
    return np.asarray((0.5 * (loc**2 + spread**2 - 1) - np.log(spread)).mean(0))


# --- the file -----------------------------------------------------------------------------------------------------

_LATENT = {"activity", "activity_se", "code_kl"}
_TEXT = ("num_draws", "space", "measure", "fingerprint", "epochs", "seconds", "of")
_DATUM = tuple(f.name for f in fields(HeldOut) if f.name not in {*_LATENT, *_TEXT, "codes", "ids"})


def _write(held_out: HeldOut, made_of: dict[str, Any], path: Path) -> None:
    variables: dict[str, Any] = {name: ("datum", getattr(held_out, name)) for name in _DATUM}
    variables |= {name: ("latent", getattr(held_out, name)) for name in sorted(_LATENT)}
    variables["codes"] = (("datum", "latent"), held_out.codes)
    dataset = xr.Dataset(variables, coords={"datum": held_out.ids})
    about = {name: getattr(held_out, name) for name in _TEXT}
    dataset.attrs = {
        "format": _FORMAT,
        "units": "nats per datum",
        "about": json.dumps(about | {"seconds": repr(held_out.seconds)}, sort_keys=True),
        "made_of": json.dumps(made_of, sort_keys=True),
    }
    dataset.attrs["sha256"] = _digest(dataset)
    write_netcdf(dataset, path)


def _digest(dataset: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name in ("format", "units", "about", "made_of"):
        digest.update(str(dataset.attrs.get(name)).encode() + b"|")
    for name in sorted(str(name) for name in dataset.variables):
        values = np.ascontiguousarray(dataset[name].values)
        digest.update(f"{name}|{values.dtype.str}|{values.shape}|".encode() + values.tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[HeldOut, dict[str, Any]]:
    if not path.is_file():
        raise RunError(
            f"no {path.name} in {str(path.parent)!r}; measure the run with analysis.experiments.held_out.measure_run"
        )
    try:
        with warnings.catch_warnings(), xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # a damaged HDF5 file fails in as many ways as it has parts
        raise RunError(f"{str(path)!r} is truncated or not a netCDF file: {error}") from None
    if dataset.attrs.get("format") != _FORMAT:
        raise RunError(f"{str(path)!r} is foreign: its format is {dataset.attrs.get('format')!r}, wanted {_FORMAT!r}")
    if dataset.attrs.get("sha256") != _digest(dataset):
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    about = json.loads(dataset.attrs["about"])
    arrays = {name: dataset[name].values for name in (*_DATUM, *_LATENT, "codes")}
    about["seconds"] = float(about["seconds"])
    return HeldOut(**arrays, ids=dataset["datum"].values, **about), dict(json.loads(dataset.attrs["made_of"]))
