"""`fit`: stochastic variational inference over epochs, that can be watched, stopped, resumed and trusted."""

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor

from vae_pyro.core.isolation import checked_seed, derive_seed, isolated
from vae_pyro.data.dataset import Dataset, as_split
from vae_pyro.data.memory.sparse_rows import is_sparse
from vae_pyro.data.resolution import require_observed, require_resolution
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.ranks import CONTINUE, together
from vae_pyro.parallel.signals import FitInterruptedError, watched_signals
from vae_pyro.runs.folder import RunFolder
from vae_pyro.runs.weights import set_weights, weights
from vae_pyro.training.config import FitConfig
from vae_pyro.training.failure import NonFiniteLossError
from vae_pyro.training.loop import INITIAL_STREAM, NOISE_STREAM, VALIDATION_STREAM, Loop, OnEpoch
from vae_pyro.training.progress import FitProgress
from vae_pyro.training.resume import described, events_of, open_run
from vae_pyro.training.warm_start import Fitted, initialize_from

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FitConfig", "FitInterruptedError", "FitResult", "NonFiniteLossError", "fit"]

_INITIAL_NUMBERS = 1 << 26
_INITIAL_ROWS = 20_000


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves.

    Attributes:
        vae: the fitted VAE (the one that was passed in).
        history: one row for each epoch: running means over the epoch of ``elbo``, ``reconstruction`` and ``kl`` in nats
            per datum (of the ELBO itself, whatever the objective and the weight of the KL), ``bound``, what the
            objective maximised, ``validation_*`` likewise at the end of it, ``kl_weight``, ``lr`` and ``seconds``.
        best_epoch: epoch whose validation ELBO was best, counted from 1; ``None`` without validation data. Where the
            data decide on the length and the objective is importance weighted, of those epochs whose
            ``validation_bound`` is not worse beyond its paired standard error.
        stopped_early: whether patience ran out.
        restored_best: whether the weights are those of `best_epoch`; if not, they are the last.
        out: the run folder, or ``None``.
        ending: how the fit ended (converged, at its bound and still rising, or overfitting); empty where its epochs
            were given.
    """

    vae: VAE = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int | None
    stopped_early: bool
    restored_best: bool
    out: Path | None
    ending: str = ""

    @property
    def epochs(self) -> int:
        """Epochs that were run."""
        return len(self.history)

    def summary(self) -> dict[str, float]:
        """The row of `history` of the epoch whose weights the VAE has; ``seconds`` are those of the whole fit."""
        row = self.history[(self.best_epoch or 0) - 1 if self.restored_best else -1]
        return {**row, "seconds": sum(one["seconds"] for one in self.history)}

    def to_dataframe(self) -> "pd.DataFrame":
        """`history` as a table."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def __str__(self) -> str:
        row = self.summary()
        ended = "stopped early" if self.stopped_early else "all that were planned"
        lines = [f"fit of {self.epochs} epochs ({ended}) in {row['seconds']:.1f} s"]
        lines.append(
            f"weights of epoch {row['epoch']:.0f}{' (the best)' if self.restored_best else ''}, nats per datum:"
        )
        for prefix, title in (("", "training"), ("validation_", "validation")):
            if f"{prefix}elbo" in row:
                terms = (row[f"{prefix}{name}"] for name in ("elbo", "reconstruction", "kl"))
                lines.append("  {:<10}  ELBO {:.2f}  reconstruction {:.2f}  KL {:.2f}".format(title, *terms))
        if self.ending:
            lines.append(self.ending)
        return "\n".join([*lines, f"run folder: {self.out or 'none'}"])

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format="{:.4g}".format))


def fit(
    vae: VAE,
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    validation: Split | Tensor | np.ndarray[Any, Any] | None = None,
    config: FitConfig | None = None,
    seed: int = 0,
    mask: Tensor | None = None,
    validation_mask: Tensor | None = None,
    y: Any = None,
    validation_y: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data: Dataset | None = None,
    init_from: Fitted | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Fit a VAE by stochastic variational inference.

    Each step is that of `pyro.infer.SVI`: the objective's ``differentiable_loss`` over model and guide, and one torch
    optimizer for all parameters. Data stay on the device. Noise, order and validation draws depend on ``seed`` alone;
    no random state, signal handler or parameter-store entry is changed behind the call.

    Args:
        vae: changed in place; it ends on the device of the fit, in evaluation mode. Statistics, output bias
            and pseudo-inputs start from 20,000 random training data, unless it was fitted before.
        x: training data ``(datum, *x_shape)``. A `Split` with random observations draws them anew at every step.
        validation: likewise; random observations are fixed once. An empty split is none.
        config: `FitConfig`.
        seed: of this fit.
        mask: boolean, shape of ``x``, true where observed; an element that is NaN is not.
        validation_mask: likewise for ``validation``.
        y: classes ``(datum,)`` that the programs are given, -1 where one is unknown.
        validation_y: likewise for ``validation``.
        out: run folder; ``None`` keeps nothing on disk.
        resume: continue the run in ``out`` from its last checkpoint, to the bits of an uninterrupted run.
        overwrite: replace a run in ``out``.
        data: where ``x`` came from, for the run folder; ``vae-pyro evaluate`` loads it again.
        init_from: a VAE of the same configuration, or the folder of a run, whose weights and statistics this fit starts
            from, see `vae_pyro.training.warm_start.initialize_from`; the optimizer starts anew. ``config.json`` names
            it.
        progress: show the live line; ``None`` does where standard error is a terminal.
        on_epoch: called after each epoch, and its checkpoint, with the row of `FitResult.history`; the fit ends there
            where it returns true, and stays resumable where it raises.

    Returns:
        The fitted VAE and its history.

    Raises:
        ValueError: data outside the support of the likelihood, wrong shapes, columns without a value or that the
            type of the fit cannot resolve, warm-ups longer than the fit, a device that is not there.
        RunError: ``out`` holds another run, or what resume or ``init_from`` needs is missing or damaged.
        NonFiniteLossError: the loss became NaN or infinite.
        FitInterruptedError: SIGINT or SIGTERM, after a checkpoint.
    """
    config = FitConfig() if config is None else config
    seed = checked_seed(seed)
    config.require_full_weights()
    ranks, device = config.together()
    train = checked(vae, as_split(x, mask, y))
    names = None if data is None else data.facts.columns
    require_observed(train, names)
    require_resolution(train, vae.dtype, names)
    validation = as_split(validation) if is_sparse(validation) else validation  # which has a length then
    held_out = None
    if validation is not None and len(validation) > 0:
        held_out = checked(vae, as_split(validation, validation_mask, validation_y)).fixed(
            derive_seed(seed, VALIDATION_STREAM)
        )
    if device.type == "cuda":  # an absent device is refused before a folder is made
        torch.cuda.init()  # so that the caller's CUDA generator is there to be put back
    if config.patience is not None and held_out is None:
        raise ValueError(f"patience={config.patience} requires validation data; pass validation=, or patience=None")
    fewest = min(len(train), config.batch_size)
    if fewest < ranks.of:
        raise ValueError(
            f"{ranks.of} processes cannot share a batch of {fewest}; raise batch_size or use fewer devices"
        )
    run = None if out is None else RunFolder(out)
    facts = described(vae, config, seed, data, train, held_out)
    if init_from is not None:
        facts["parent"] = initialize_from(vae, init_from)
    own = () if ranks.first else (ranks.rank,)
    with ExitStack() as held:
        with ranks.first_succeeds(device):
            continues = open_run(run, facts, held, resume=resume, overwrite=overwrite, write=ranks.first)
        with (
            isolated(derive_seed(seed, NOISE_STREAM, *own)),
            pyro.get_param_store().scope(),
            together(ranks, device, "no run folder, nothing was kept" if run is None else CONTINUE),
        ):
            if not continues:
                initialize(vae, train, seed)
            job = Loop(vae, train, held_out, config, seed, run, device, ranks)
            if continues:
                job.restore()
            for tensor in weights(vae).values():
                ranks.copy_from_first(tensor)
            with (
                events_of(run if ranks.first else None, job.state.epoch) as events,
                watched_signals() as caught,
                FitProgress(job.length.epochs, job.steps_per_epoch, show=progress if ranks.first else False) as shown,
                warnings.catch_warnings(),
            ):
                # Pyro warns of a NaN loss; here it is an error, raised with its cause.
                warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
                job.go(shown, caught, events, on_epoch)
        vae.eval()
        best = job.stopping.best
        if best is not None:
            set_weights(vae, best, "the best weights")
        if run is not None:
            with ranks.first_succeeds(device):
                if ranks.first:
                    run.save_model(vae, job.state.history)
    return FitResult(
        vae=vae,
        history=job.state.history,
        best_epoch=job.state.best_epoch,
        stopped_early=job.state.epoch < job.length.epochs,
        restored_best=best is not None,
        out=None if run is None else run.path,
        ending=job.state.ending,
    )


def checked(vae: VAE, split: Split) -> Split:
    """The split, once its shape, range and classes have passed the VAE's guards."""
    vae.check_data(split)
    return split


def initialize(vae: VAE, train: Split, seed: int) -> None:
    """Start what starts from data, on rows that the seed chooses."""
    rows = min(_INITIAL_ROWS, max(_INITIAL_NUMBERS // prod(train.x_shape), 1000))
    some = train.sample(rows, derive_seed(seed, INITIAL_STREAM))
    x, given = some.batch(slice(None), vae.dtype)
    vae.initialize(x, given.get("mask"), step=train.summary().step)
