"""`fit`: stochastic variational inference over epochs, that can be watched, stopped, resumed and trusted."""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil, isfinite
from pathlib import Path
from time import monotonic, perf_counter
from types import FrameType
from typing import Annotated, Any, Literal

import numpy as np
import pyro
import torch
from pydantic import Field, field_validator
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer

from vae_pyro.checkpoint import RunError, RunFolder, read_tensors, set_weights, weights, write_tensors
from vae_pyro.config import Config, choice_of
from vae_pyro.data import Dataset, Part, Split, as_split, fingerprint
from vae_pyro.evaluation import evaluate
from vae_pyro.isolation import derive_seed, isolated
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.optimizers import OPTIMIZERS
from vae_pyro.progress import FitProgress
from vae_pyro.ranks import ALONE, CONTINUE, Ranks, launch, launched, together
from vae_pyro.schedules import SCHEDULES
from vae_pyro.svi import BitStream, CompiledSVI
from vae_pyro.vae import VAE

type OnEpoch = Callable[[dict[str, float]], bool | None]

# Settings that a resumed run may change: where it runs, not what is fitted.
_FREE = ("device", "devices", "num_nodes", "checkpoint_seconds", "root")
_INITIAL_ROWS = 20_000
_NOISE, _ORDER, _VALIDATION, _INITIAL, _BITS = 1, 2, 3, 4, 5

# Steps of one shape after which a compiled step has made up for the seconds that compiling it takes.
WORTH_COMPILING = 3000


class FitConfig(Config):
    """How to fit. Each choice is a name, ``"name:option=value"``, or a mapping with ``name`` and options.

    The loss of a step is the negative objective averaged over the batch, so that learning rates and the optimizer's
    eps mean the same at every batch size.

    Attributes:
        epochs: passes over the training data.
        batch_size: data in a step; the last batch of an epoch is smaller where they do not divide, never dropped.
        optimizer: see `vae_pyro.optimizers`.
        schedule: of the learning rate, see `vae_pyro.schedules`.
        objective: see `vae_pyro.objectives`.
        kl_warmup: epochs over which the weight of the KL rises linearly from 0 to 1 (Bowman et al. 2016,
            arXiv:1511.06349).
        kl_cycle: epochs after which the weight starts from 0 again (cyclical annealing, Fu et al. 2019,
            arXiv:1903.10145); ``None`` warms up once.
        compile: let `vae_pyro.svi.CompiledSVI` take the steps; ``False`` takes Pyro's stock step. Inductor compiles a
            shape of batch where the fit is long enough to repay it, else the traced step runs without it.
        clip_norm: largest Euclidean norm of the gradient; ``None`` does not clip.
        patience: epochs without a better validation ELBO after which the fit stops and the best weights come back;
            ``None`` runs to the end and keeps the last. Epochs of the KL warm-up do not count.
        validation_particles: draws for each datum in the validation ELBO, the same draws at every epoch.
        device: ``auto`` takes CUDA where there is one.
        checkpoint_seconds: least time between checkpoints, which are written at the end of an epoch.
        precision: ``bfloat16`` runs the networks' matrix products in it; densities, weights and sums keep float32.
        devices: processes that step together on each machine, each with its share of every batch (`vae_pyro.ranks`):
            GPUs, or processes on a CPU. ``batch_size`` is that of all of them together.
        num_nodes: machines.
    """

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: choice_of(OPTIMIZERS) = "adam"  # type: ignore[valid-type]
    schedule: choice_of(SCHEDULES) = "constant"  # type: ignore[valid-type]
    objective: choice_of(OBJECTIVES) = "elbo"  # type: ignore[valid-type]
    kl_warmup: float = Field(default=0.0, ge=0)
    kl_cycle: Annotated[float, Field(gt=0)] | None = None
    compile: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    validation_particles: int = Field(default=2, ge=2)
    device: str = "auto"
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    devices: int = Field(default=1, ge=1)
    num_nodes: int = Field(default=1, ge=1)

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
            raise ValueError(f"device is 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
        return device

    def together(self) -> tuple[Ranks, torch.device]:
        """The processes of the fit, started where they are not there yet, and the device of this one.

        Raises:
            ValueError: see `torch_device` and `vae_pyro.ranks.launch`.
        """
        device = self.torch_device()
        if self.devices * self.num_nodes == 1 and launched().alone:
            return ALONE, device
        if self.device.startswith("cuda:"):
            raise ValueError(f"device={self.device!r} is one device, and devices={self.devices} wanted; use 'cuda'")
        return launch(self.devices, self.num_nodes, device.type)

    def torch_device(self) -> torch.device:
        """The device that this machine gives.

        Raises:
            ValueError: CUDA was asked for and there is none.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {self.device!r} wanted, but torch finds no CUDA here; use 'cpu' or 'auto'")
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device {self.device!r} wanted, but torch finds {torch.cuda.device_count()} CUDA devices here"
            )
        return device


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves.

    Attributes:
        vae: the fitted VAE (the one that was passed in).
        history: one row for each epoch: running means over the epoch of ``elbo``, ``reconstruction`` and ``kl`` in nats
            per datum (of the ELBO itself, whatever the objective and the weight of the KL), ``bound``, what the
            objective maximised, ``validation_*`` likewise at the end of it, ``kl_weight``, ``lr`` and ``seconds``.
        best_epoch: epoch whose validation ELBO was best, counted from 1; ``None`` without validation data.
        stopped_early: whether patience ran out.
        restored_best: whether the weights are those of `best_epoch`; if not, they are the last.
        out: the run folder, or ``None``.
    """

    vae: VAE
    history: list[dict[str, float]]
    best_epoch: int | None
    stopped_early: bool
    restored_best: bool
    out: Path | None

    @property
    def epochs(self) -> int:
        """Epochs that were run."""
        return len(self.history)


class _PerDatum(ELBO):
    """An objective averaged over the batch, so that rates and eps mean the same at every batch size."""

    def __init__(self, objective: ELBO) -> None:
        super().__init__()
        self.objective = objective

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The objective's, still summed over data."""
        figures: dict[str, Tensor] = self.objective.metrics
        return figures

    @metrics.setter
    def metrics(self, figures: dict[str, Tensor]) -> None:
        self.objective.metrics = figures

    def loss(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> float:
        """The objective's, divided by the number of data."""
        return float(self.objective.loss(model, guide, x, **kwargs)) / len(x)

    def differentiable_loss(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> Tensor:
        """The objective's, divided by the number of data."""
        loss: Tensor = self.objective.differentiable_loss(model, guide, x, **kwargs)
        return loss / len(x)

    def loss_and_grads(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> Tensor:
        """Its gradient added to the parameters'."""
        loss = self.differentiable_loss(model, guide, x, **kwargs)
        loss.backward()
        return loss.detach()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("the objective inside makes its own traces")


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message names the step, the likely cause and the last good checkpoint."""


class FitInterruptedError(KeyboardInterrupt):
    """A signal ended the fit after a whole step, and after a checkpoint where there is a run folder.

    Attributes:
        signum: SIGINT or SIGTERM.
        out: the run folder, or ``None``.
    """

    def __init__(self, signum: int, out: Path | None) -> None:
        where = f"; continue {str(out)!r} with --resume (resume=True)" if out else "; no run folder, nothing was kept"
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}")
        self.signum, self.out = signum, out


@dataclass
class _Caught:
    signum: int | None = None


@contextmanager
def _signals() -> Iterator[_Caught]:
    # Python delivers signals to the main thread alone; a fit in another thread leaves them to it.
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if caught.signum is not None:  # a second Ctrl-C does not wait for the step to end
            raise KeyboardInterrupt
        caught.signum = signum

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _State:
    """Where a fit stands. With the weights, the optimizer's state and the generators', it is all that resume needs."""

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_elbo: float | None = None
    stale: int = 0
    finished: bool = False


class _Fit:
    """One run of `fit`: its data, its optimizer and its state."""

    def __init__(
        self,
        vae: VAE,
        train: Split,
        validation: Split | None,
        config: FitConfig,
        seed: int,
        run: RunFolder | None,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.vae, self.config, self.seed, self.run = vae, config, seed, run
        self.device, self.ranks, self.part = device, ranks, Part(ranks.rank, ranks.of)
        vae.to(self.device)
        self.train = train.to(self.device)
        self.validation = None if validation is None else validation.to(self.device)
        self.steps_per_epoch = ceil(len(train) / config.batch_size)
        self.parameters: list[nn.Parameter] = list(vae.parameters())
        self.optimizer: Optimizer = OPTIMIZERS.build(config.optimizer, self.parameters)
        self.schedule = SCHEDULES.build(config.schedule, config.epochs * self.steps_per_epoch, self.steps_per_epoch)
        self.objective: Any = OBJECTIVES.build(config.objective)
        self.svi = CompiledSVI(
            vae.model,
            vae.guide,
            self.optimizer,
            _PerDatum(self.objective),
            prepare=partial(self.train.observe, dtype=vae.dtype),
            clip_norm=config.clip_norm,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            ranks=ranks,
        )
        self.state = _State()
        self.best: dict[str, Tensor] | None = None
        self.batches: Iterator[tuple[Tensor, ...]] = iter(())
        self._saved = monotonic()

    # --- the loop -------------------------------------------------------------------------------------------------

    def go(self, progress: FitProgress, caught: _Caught, events: Any, on_epoch: OnEpoch | None) -> None:
        state, config = self.state, self.config
        while state.epoch < config.epochs and not state.finished:
            self._shuffle()
            began = perf_counter() - state.seconds
            while state.batch < self.steps_per_epoch:
                stop = self._step(caught)
                state.seconds = perf_counter() - began
                done = state.sums["count"]
                means = {name: state.sums[name] / done for name in ("elbo", "kl", "reconstruction")}
                progress.step(state.epoch, state.batch, means, done / state.seconds)
                if stop is not None:
                    self._require_finite_weights()
                    self.checkpoint()
                    raise FitInterruptedError(stop, self.run.path if self.run else None)
            self._close_epoch(progress, events)
            self._require_finite_weights()
            if self.run and self._agreed(state.finished or monotonic() - self._saved >= config.checkpoint_seconds):
                self.checkpoint()
                if self.ranks.first:
                    self.run.write_history(state.history)
            if on_epoch is not None and self._agreed(bool(on_epoch(dict(state.history[-1])))):
                state.finished = True

    def _agreed(self, wish: bool) -> bool:
        """What the first process wants: clocks differ, and all are to do the same."""
        if self.ranks.alone:
            return wish
        wanted = torch.tensor(float(wish), device=self.device)
        self.ranks.copy_from_first(wanted)
        return bool(wanted)

    def _shuffle(self) -> None:
        epoch, size = self.state.epoch, self.config.batch_size
        bits = BitStream(derive_seed(self.seed, _BITS, epoch, *self._own), self.device)
        order = derive_seed(self.seed, _ORDER, epoch)
        self.batches = self.train.epoch(size, order, bits, start=self.state.batch, part=self.part)

    @property
    def _own(self) -> tuple[int, ...]:
        """What keeps the random numbers of a process apart from those of the others."""
        return () if self.ranks.first else (self.ranks.rank,)

    def _rate_and_weight(self, number: int) -> tuple[float, float]:
        """Learning rate and weight of the KL at step ``number`` of the run."""
        config = self.config
        warm, position = config.kl_warmup * self.steps_per_epoch, float(number)
        if config.kl_cycle is not None:
            position %= config.kl_cycle * self.steps_per_epoch
        weight = min(1.0, position / warm) if warm else 1.0
        return config.optimizer.options["lr"] * self.schedule(number), weight

    def _form_of_step(self, size: int) -> bool | str:
        if not self.config.compile:
            return "never"
        whole, rest = divmod(len(self.train), self.config.batch_size)
        planned = self.config.epochs * (whole if size == self.config.batch_size else min(rest, 1))
        return planned >= WORTH_COMPILING

    def _step(self, caught: _Caught) -> int | None:
        """One step; the signal that any of the processes has caught, if one has."""
        state, config = self.state, self.config
        number = state.epoch * self.steps_per_epoch + state.batch
        rate, weight = self._rate_and_weight(number)
        self.objective.kl_weight.fill_(weight)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        raw = next(self.batches)
        count = min(config.batch_size, len(self.train) - state.batch * config.batch_size)
        own = len(raw[0])
        self.svi.compile = self._form_of_step(count)
        self.svi.share, self.svi.signal = own / count, float(caught.signum or 0)
        loss = float(self.svi.step_tensor(*raw) if own else self.svi.step_empty())
        metrics = self.svi.metrics
        reconstruction, kl = float(metrics["reconstruction"]), float(metrics["kl"])
        if config.clip_norm is not None and not isfinite(float(metrics["gradient_norm"])):
            raise self._failure(number, raw, "the gradient")
        if not isfinite(loss):
            raise self._failure(number, raw, "the loss")

        state.batch += 1
        for name, value in (
            ("elbo", reconstruction - kl),
            ("reconstruction", reconstruction),
            ("kl", kl),
            ("bound", -loss * count),
            ("count", count),
        ):
            state.sums[name] = state.sums.get(name, 0.0) + value
        if self.ranks.alone:
            return caught.signum
        if float(metrics["signal"]) == 0:
            return None
        return caught.signum or signal.SIGTERM

    def _close_epoch(self, progress: FitProgress, events: Any) -> None:
        state, config = self.state, self.config
        count = state.sums["count"]
        rate, weight = self._rate_and_weight((state.epoch + 1) * self.steps_per_epoch - 1)
        assert count == len(self.train), "an epoch sees every datum once"
        row = {
            "epoch": state.epoch + 1,
            "elbo": state.sums["elbo"] / count,
            "reconstruction": state.sums["reconstruction"] / count,
            "kl": state.sums["kl"] / count,
            "bound": state.sums["bound"] / count,
            "kl_weight": weight,
            "lr": rate,
            "seconds": state.seconds,
        }
        if self.validation is not None:
            figures = self._validate()
            row |= {f"validation_{name}": figures[name] for name in ("elbo", "reconstruction", "kl")}
            if not isfinite(figures["elbo"]):
                raise NonFiniteLossError(
                    f"the validation ELBO is {figures['elbo']} after epoch {state.epoch + 1}{self._way_out()}"
                )
            progress.validated(figures["elbo"])
            self._judge(figures["elbo"])
        state.history.append(row)
        for name, value in row.items():
            if name != "epoch" and events is not None:
                events.add_scalar(name, value, state.epoch + 1)
        state.epoch, state.batch, state.sums, state.seconds = state.epoch + 1, 0, {}, 0.0
        if state.epoch == config.epochs or (config.patience is not None and state.stale >= config.patience):
            state.finished = True

    def _validate(self) -> dict[str, float]:
        """Validation ELBO and its terms; several processes take a part of the data each."""
        assert self.validation is not None
        begin, end = self.part.bounds(len(self.validation))
        names = ("elbo", "reconstruction", "kl")
        sums = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        if end > begin:
            figures = evaluate(
                self.vae,
                self.validation if self.ranks.alone else self.validation.take(slice(begin, end)),
                num_samples=self.config.validation_particles,
                seed=derive_seed(self.seed, _VALIDATION, *self._own),
            ).summary()
            if self.ranks.alone:
                return figures
            sums += torch.tensor([figures[name] * (end - begin) for name in names], device=self.device)
        self.ranks.add(sums)
        return dict(zip(names, (sums / len(self.validation)).tolist(), strict=True))

    def _judge(self, elbo: float) -> None:
        state = self.state
        if self._rate_and_weight((state.epoch + 1) * self.steps_per_epoch)[1] < 1:
            return
        if state.best_elbo is None or elbo > state.best_elbo:
            state.best_elbo, state.best_epoch, state.stale = elbo, state.epoch + 1, 0
            if self.config.patience is not None:
                self.best = {name: tensor.clone() for name, tensor in weights(self.vae).items()}
        else:
            state.stale += 1

    # --- failure --------------------------------------------------------------------------------------------------

    def _require_finite_weights(self) -> None:
        # The loss is checked before a step; what the last step did to the weights shows only in them.
        for name, value in self.vae.named_parameters():
            if not bool(value.isfinite().all()):
                rate = self.optimizer.param_groups[0]["lr"]
                raise NonFiniteLossError(
                    f"the weights are not finite after epoch {self.state.epoch} ({name} first); likely cause: the last "
                    f"step was too long: lower the learning rate ({rate:g}) or set clip_norm{self._way_out()}"
                )

    def _way_out(self) -> str:
        if self.run is not None and self.run.checkpoint_file.exists():
            return f"; the last good checkpoint is {str(self.run.checkpoint_file)!r}"
        return "; there is no checkpoint yet" if self.run else "; without a run folder there is no checkpoint"

    def _failure(self, number: int, raw: tuple[Tensor, ...], what: str) -> NonFiniteLossError:
        (x,), _ = self.train.observe(*raw, dtype=self.vae.dtype)
        broken = [name for name, value in self.vae.named_parameters() if not bool(value.isfinite().all())]
        rate = float(self.optimizer.param_groups[0]["lr"])
        if not bool(x.isfinite().all()):
            cause = "the batch holds values that are not finite and that no mask hides"
        elif broken:
            cause = f"the weights diverged ({broken[0]} first): lower the learning rate ({rate:g}) or set clip_norm"
        elif not isfinite(float(self.svi.metrics["kl"])):
            cause = (
                f"the KL is {float(self.svi.metrics['kl'])}: a posterior scale overflowed; lower the learning rate "
                f"({rate:g}), set clip_norm, or warm up the rate"
            )
        elif not isfinite(float(self.svi.metrics["reconstruction"])):
            cause = (
                f"log p(x | z) is {float(self.svi.metrics['reconstruction'])}: a scale or rate of the likelihood "
                f"{self.vae.config.likelihood.name!r} under- or overflowed; scale the data or raise its lower bound"
            )
        else:
            cause = f"a gradient overflowed: lower the learning rate ({rate:g}) or set clip_norm"
        epoch = number // self.steps_per_epoch + 1
        return NonFiniteLossError(
            f"{what} is not finite at step {number + 1} (epoch {epoch}); likely cause: {cause}{self._way_out()}"
        )

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Write everything that resume needs as one file."""
        if self.run is None:
            return
        kept = self._generators()
        self._saved = monotonic()
        if not self.ranks.first:
            return
        tensors = {f"model/{name}": tensor for name, tensor in weights(self.vae).items()}
        if self.best is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items() if torch.is_tensor(value)}
        tensors |= {f"random/{name}": state for name, state in kept.items()}
        write_tensors(self.run.checkpoint_file, tensors, "checkpoint", {"state": vars(self.state)})

    def _generators(self) -> dict[str, Tensor]:
        """States of the generators by name; those of the other processes carry their rank."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.ranks.alone:
            return states
        gathered: dict[str, Tensor] = {}
        for name, state in states.items():
            for rank, one in enumerate(self.ranks.gather(state.to(self.device))):
                gathered[f"{name}/{rank}" if rank else name] = one.cpu()
        return gathered

    def restore(self) -> None:
        """Continue from the checkpoint of the run folder, with the generators as they were."""
        assert self.run is not None
        tensors, info = read_tensors(self.run.checkpoint_file, "checkpoint")
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}, "random": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            groups[kind][rest] = tensor
        set_weights(self.vae, groups["model"], str(self.run.checkpoint_file))
        self.best = {name: tensor.to(self.device) for name, tensor in groups["best"].items()} or None
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition("/")
            slots.setdefault(int(index), {})[key] = tensor
        if slots:
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        # A run that had fewer processes left no state for the others; they start from seeds of their own.
        mine, random = "" if self.ranks.first else f"/{self.ranks.rank}", groups["random"]
        if f"cpu{mine}" in random:
            torch.set_rng_state(random[f"cpu{mine}"])
        if self.device.type == "cuda" and f"cuda{mine}" in random:
            torch.cuda.set_rng_state(random[f"cuda{mine}"], self.device)
        self.state = _State(**info["state"])


def fit(
    vae: VAE,
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    validation: Split | Tensor | np.ndarray[Any, Any] | None = None,
    config: FitConfig | None = None,
    seed: int = 0,
    mask: Tensor | None = None,
    validation_mask: Tensor | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data: Dataset | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Fit a VAE by stochastic variational inference.

    Each step is that of `pyro.infer.SVI`: the objective's ``differentiable_loss`` over model and guide, and one torch
    optimizer for all parameters. Data stay on the device. Noise, order and validation draws depend on ``seed`` alone;
    no random state, signal handler or parameter-store entry is changed behind the call.

    Args:
        vae: changed in place; it ends on the device of the fit. Statistics, output bias and pseudo-inputs start from
            20,000 random training data, unless it was fitted before.
        x: training data ``(datum, *x_shape)``. A `Split` with random observations draws them anew at every step.
        validation: likewise; random observations are fixed once. An empty split is none.
        config: `FitConfig`.
        seed: of this fit.
        mask: boolean, shape of ``x``, true where observed.
        validation_mask: likewise for ``validation``.
        out: run folder; ``None`` keeps nothing on disk.
        resume: continue the run in ``out`` from its last checkpoint, to the bits of an uninterrupted run.
        overwrite: replace a run in ``out``.
        data: where ``x`` came from, for the run folder; ``vae-pyro evaluate`` loads it again.
        progress: show the live line; ``None`` does where standard error is a terminal.
        on_epoch: called after each epoch, and its checkpoint, with the row of `FitResult.history`; the fit ends there
            where it returns true, and stays resumable where it raises.

    Returns:
        The fitted VAE and its history.

    Raises:
        ValueError: data outside the support of the likelihood, wrong shapes, a device that is not there.
        RunError: ``out`` holds another run, or what resume needs is missing or damaged.
        NonFiniteLossError: the loss became NaN or infinite.
        FitInterruptedError: SIGINT or SIGTERM, after a checkpoint.
    """
    config = FitConfig() if config is None else config
    ranks, device = config.together()
    train = _checked(vae, as_split(x, mask))
    held_out = None
    if validation is not None and len(validation) > 0:
        held_out = _checked(vae, as_split(validation, validation_mask)).fixed(derive_seed(seed, _VALIDATION))
    if device.type == "cuda":  # an absent device is refused before a folder is made
        torch.cuda.init()  # so that the caller's CUDA generator is there to be put back
    if config.patience is not None and held_out is None:
        raise ValueError(f"patience={config.patience} wants validation data; pass validation=, or patience=None")
    fewest = min(len(train), config.batch_size)
    if fewest < ranks.of:
        raise ValueError(
            f"{ranks.of} processes cannot share a batch of {fewest}; raise batch_size or use fewer devices"
        )
    run = None if out is None else RunFolder(out)
    described = {
        "model": vae.config.model_dump(mode="json"),
        "fit": config.model_dump(mode="json"),
        "seed": seed,
        **_describe(data, train, held_out),
    }
    with ranks.first_succeeds(device):
        continues = _open(run, described, resume=resume, overwrite=overwrite, write=ranks.first)

    own = () if ranks.first else (ranks.rank,)
    with (
        isolated(derive_seed(seed, _NOISE, *own)),
        pyro.get_param_store().scope(),
        together(ranks, device, "no run folder, nothing was kept" if run is None else CONTINUE),
    ):
        if not continues:
            _initialize(vae, train, seed)
        job = _Fit(vae, train, held_out, config, seed, run, device, ranks)
        if continues:
            job.restore()
        for tensor in weights(vae).values():
            ranks.copy_from_first(tensor)
        with (
            _tensorboard(run if ranks.first else None, job.state.epoch) as events,
            _signals() as caught,
            FitProgress(config.epochs, job.steps_per_epoch, show=progress if ranks.first else False) as shown,
            warnings.catch_warnings(),
        ):
            # Pyro warns of a NaN loss; here it is an error, raised with its cause.
            warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
            job.go(shown, caught, events, on_epoch)
    restored = config.patience is not None and job.best is not None
    if restored:
        assert job.best is not None
        set_weights(vae, job.best, "the best weights")
    if run is not None:
        with ranks.first_succeeds(device):
            if ranks.first:
                run.save_model(vae)
                run.write_history(job.state.history)
    return FitResult(
        vae=vae,
        history=job.state.history,
        best_epoch=job.state.best_epoch,
        stopped_early=job.state.epoch < config.epochs,
        restored_best=restored,
        out=None if run is None else run.path,
    )


def _open(run: RunFolder | None, described: dict[str, Any], *, resume: bool, overwrite: bool, write: bool) -> bool:
    """Begin a run folder, or check that the run in it is this one; whether there is a checkpoint to go on from."""
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: continue the run, or replace it")
    if run is None:
        if resume:
            raise ValueError("resume=True wants the run folder: pass out=")
        return False
    if resume:
        _same_run(run, described)
        return run.checkpoint_file.exists()
    if write:
        run.begin(described, overwrite=overwrite)
    return False


def _checked(vae: VAE, split: Split) -> Split:
    """The split, once its shape and its range have passed the VAE's guards."""
    vae.check(split.values, split.summary())
    return split


def _describe(data: Dataset | None, train: Split, held_out: Split | None) -> dict[str, Any]:
    """What a run folder says of its data: how to load them again, or at least how to know them again."""
    if data is not None:
        return {"data": data.config.model_dump(mode="json"), "facts": data.facts}
    splits = [train] if held_out is None else [train, held_out]
    return {"data": {"array_shape": list(train.values.shape)}, "facts": {"fingerprint": fingerprint(*splits)}}


def _initialize(vae: VAE, train: Split, seed: int) -> None:
    generator = torch.Generator().manual_seed(derive_seed(seed, _INITIAL))
    rows = torch.randperm(len(train), generator=generator)[:_INITIAL_ROWS]
    x, observed = train.batch(rows.to(train.values.device), vae.dtype)
    vae.initialize(x, observed, step=train.summary().step)


def _same_run(run: RunFolder, described: dict[str, Any]) -> None:
    stored = run.config()
    for section in ("model", "fit", "data", "seed"):
        old, new = stored[section], described[section]
        if old == new:
            continue
        keys = [key for key in new if old.get(key) != new[key]] if isinstance(new, dict) else [section]
        keys = [key for key in keys if key not in _FREE]
        if keys:
            was = old.get(keys[0]) if isinstance(old, dict) else old
            now = new.get(keys[0]) if isinstance(new, dict) else new
            raise RunError(
                f"the run in {str(run.path)!r} has {section} {keys[0]} = {was!r}, this call has {now!r}; resume with "
                "the run's own settings, or start another run"
            )
    old, new = stored["facts"].get("fingerprint"), described["facts"].get("fingerprint")
    if old != new:
        raise RunError(f"the data have changed since the run in {str(run.path)!r} began; its fingerprint was {old}")


@contextmanager
def _tensorboard(run: RunFolder | None, epoch: int) -> Iterator[Any]:
    if run is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path), purge_step=epoch + 1 if epoch else None)
    try:
        yield writer
    finally:
        writer.close()
