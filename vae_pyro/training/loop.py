"""The loop of a fit: steps, epochs, validation, checkpoints, and what a loss that is not finite means."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import ceil, isfinite
from time import monotonic, perf_counter
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer

from vae_pyro.core.files import read_tensors, write_tensors
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.split import Part, Split
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.models.vae import VAE
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.parallel.ranks import ALONE, Ranks
from vae_pyro.parallel.signals import Caught, FitInterruptedError
from vae_pyro.runs.folder import RunFolder, set_weights, weights
from vae_pyro.svi.compiled_svi import CompiledSVI
from vae_pyro.svi.stepper import Compile
from vae_pyro.training.config import FitConfig
from vae_pyro.training.optimizers import OPTIMIZERS
from vae_pyro.training.progress import FitProgress
from vae_pyro.training.schedules import SCHEDULES

type OnEpoch = Callable[[dict[str, float]], bool | None]

# Independent random streams of one seed.
NOISE_STREAM, ORDER_STREAM, VALIDATION_STREAM, INITIAL_STREAM, BITS_STREAM = 1, 2, 3, 4, 5

# Steps of one shape after which a compiled step has made up for the seconds that compiling it takes.
WORTH_COMPILING = 3000


class PerDatum(ELBO):
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


@dataclass
class State:
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


class Loop:
    """One run of `vae_pyro.fit`: its data, its optimizer and its state.

    Args:
        vae: see `vae_pyro.fit`; likewise ``config`` and ``seed``.
        train: checked.
        validation: checked and fixed.
        run: folder of its checkpoints; ``None`` writes none.
        device: of this process.
        ranks: those that take every step with it.
        ensemble: options of `vae_pyro.svi.compiled_svi.CompiledSVI` for members that are stepped at once.
    """

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
        **ensemble: Any,
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
            PerDatum(self.objective),
            prepare=partial(self.train.observe, dtype=vae.dtype),
            clip_norm=config.clip_norm,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            ranks=ranks,
            **ensemble,
        )
        self.state = State()
        self.best: dict[str, Tensor] | None = None
        self.batches: Iterator[tuple[Tensor, ...]] = iter(())
        self._saved = monotonic()

    # --- the loop -------------------------------------------------------------------------------------------------

    def go(self, progress: FitProgress, caught: Caught, events: Any, on_epoch: OnEpoch | None) -> None:
        """Step through the epochs that are left.

        Raises:
            FitInterruptedError: a signal came; after a whole step and a checkpoint.
            NonFiniteLossError: the loss, a gradient or a weight is no number.
        """
        state, config = self.state, self.config
        while state.epoch < config.epochs and not state.finished:
            self.shuffle()
            began = perf_counter() - state.seconds
            while state.batch < self.steps_per_epoch:
                stop = self._step(caught)
                state.seconds = perf_counter() - began
                done = state.sums["count"]
                means = {name: state.sums[name] / done for name in ("elbo", "kl", "reconstruction")}
                progress.step(state.epoch, state.batch, means, done / state.seconds)
                if stop is not None:
                    self.require_finite_weights()
                    self.checkpoint()
                    raise FitInterruptedError(stop, self.run.path if self.run else None)
            self.close_epoch(progress, events)
            self.require_finite_weights()
            if self.run and self._agreed(self.wants_checkpoint()):
                self.checkpoint()
                if self.ranks.first:
                    self.run.write_history(state.history)
            if on_epoch is not None and self._agreed(bool(on_epoch(dict(state.history[-1])))):
                state.finished = True

    def wants_checkpoint(self) -> bool:
        """Whether the time for one has come."""
        return self.state.finished or monotonic() - self._saved >= self.config.checkpoint_seconds

    def _agreed(self, wish: bool) -> bool:
        """What the first process wants: clocks differ, and all are to do the same."""
        if self.ranks.alone:
            return wish
        wanted = torch.tensor(float(wish), device=self.device)
        self.ranks.copy_from_first(wanted)
        return bool(wanted)

    def shuffle(self) -> None:
        """Begin the epoch, or go on where it had come to."""
        epoch, size = self.state.epoch, self.config.batch_size
        bits = BitStream(derive_seed(self.seed, BITS_STREAM, epoch, *self._own), self.device)
        order = derive_seed(self.seed, ORDER_STREAM, epoch)
        self.batches = self.train.epoch(size, order, bits, start=self.state.batch, part=self.part)

    @property
    def _own(self) -> tuple[int, ...]:
        """What keeps the random numbers of a process apart from those of the others."""
        return () if self.ranks.first else (self.ranks.rank,)

    def _rate_and_weight(self, number: int) -> tuple[float, float]:
        """Learning rate and weight of the KL at step ``number`` of the run."""
        weight = self.config.kl_weight_at(number, self.steps_per_epoch)
        return self.config.optimizer.options["lr"] * self.schedule(number), weight

    def form_of_step(self, size: int) -> Compile:
        """How `CompiledSVI` is to take steps of so many data."""
        if not self.config.compile:
            return "never"
        whole, rest = divmod(len(self.train), self.config.batch_size)
        planned = self.config.epochs * (whole if size == self.config.batch_size else min(rest, 1))
        return planned >= WORTH_COMPILING

    def _step(self, caught: Caught) -> int | None:
        """One step; the signal that any of the processes has caught, if one has."""
        count = self.begin_step()
        raw = next(self.batches)
        own = len(raw[0])
        self.ranks.announce(caught.signum)
        if own:
            loss = float(self.svi.take_step(raw, share=own / count, compile=self.form_of_step(count)))
        else:
            loss = float(self.svi.step_empty())
        metrics = {name: float(value) for name, value in self.svi.metrics.items()}
        self.end_step(count, raw, loss, metrics)
        return self.ranks.agreed_signal(caught.signum)

    def begin_step(self) -> int:
        """Set the rates of the next step; the data in it."""
        state = self.state
        rate, weight = self._rate_and_weight(state.epoch * self.steps_per_epoch + state.batch)
        self.objective.kl_weight.fill_(weight)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return min(self.config.batch_size, len(self.train) - state.batch * self.config.batch_size)

    def end_step(self, count: int, raw: tuple[Tensor, ...], loss: float, metrics: dict[str, float]) -> None:
        """Add a step's figures to those of the epoch.

        Raises:
            NonFiniteLossError: the loss or the gradient was not finite, and the step not taken.
        """
        state, number = self.state, self.state.epoch * self.steps_per_epoch + self.state.batch
        if not isfinite(metrics.get("gradient_norm", 0.0)):
            raise self._failure(number, raw, "the gradient", metrics)
        if not isfinite(loss):
            raise self._failure(number, raw, "the loss", metrics)
        state.batch += 1
        for name, value in (
            ("elbo", metrics["reconstruction"] - metrics["kl"]),
            ("reconstruction", metrics["reconstruction"]),
            ("kl", metrics["kl"]),
            ("bound", -loss * count),
            ("count", count),
        ):
            state.sums[name] = state.sums.get(name, 0.0) + value

    def close_epoch(self, progress: FitProgress, events: Any) -> None:
        """Validate, and add a row to the history."""
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
                self.validation if self.ranks.alone else self.validation.between(begin, end),
                num_draws=self.config.validation_particles,
                seed=derive_seed(self.seed, VALIDATION_STREAM, *self._own),
            ).summary()
            if self.ranks.alone:
                return figures
            sums += torch.tensor([figures[name] * (end - begin) for name in names], device=self.device)
        self.ranks.add(sums)
        return dict(zip(names, (sums / len(self.validation)).tolist(), strict=True))

    def _judge(self, elbo: float) -> None:
        state = self.state
        if not self.config.epoch_counts(state.epoch + 1, self.steps_per_epoch):
            return
        if state.best_elbo is None or elbo > state.best_elbo:
            state.best_elbo, state.best_epoch, state.stale = elbo, state.epoch + 1, 0
            if self.config.patience is not None:
                self.best = {name: tensor.clone() for name, tensor in weights(self.vae).items()}
        else:
            state.stale += 1

    # --- failure --------------------------------------------------------------------------------------------------

    def require_finite_weights(self) -> None:
        """Refuse to go on with, or to keep, weights that are no numbers.

        Raises:
            NonFiniteLossError: one is not finite.
        """
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

    def _failure(
        self, number: int, raw: tuple[Tensor, ...], what: str, metrics: dict[str, float]
    ) -> NonFiniteLossError:
        (x,), _ = self.train.observe(*raw, dtype=self.vae.dtype)
        broken = [name for name, value in self.vae.named_parameters() if not bool(value.isfinite().all())]
        rate = float(self.optimizer.param_groups[0]["lr"])
        if not bool(x.isfinite().all()):
            cause = "the batch holds values that are not finite and that no mask hides"
        elif broken:
            cause = f"the weights diverged ({broken[0]} first): lower the learning rate ({rate:g}) or set clip_norm"
        elif not isfinite(metrics["kl"]):
            cause = (
                f"the KL is {metrics['kl']}: a posterior scale overflowed; lower the learning rate "
                f"({rate:g}), set clip_norm, or warm up the rate"
            )
        elif not isfinite(metrics["reconstruction"]):
            cause = (
                f"log p(x | z) is {metrics['reconstruction']}: a scale or rate of the likelihood "
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
        kept = self.generators()
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

    def generators(self) -> dict[str, Tensor]:
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
        self.set_generators(groups["random"])
        self.state = State(**info["state"])

    def set_generators(self, states: dict[str, Tensor]) -> None:
        """Put the generators to where they were; what `generators` gave."""
        # A run that had fewer processes left no state for the others; they start from seeds of their own.
        mine = "" if self.ranks.first else f"/{self.ranks.rank}"
        if f"cpu{mine}" in states:
            torch.set_rng_state(states[f"cpu{mine}"])
        if self.device.type == "cuda" and f"cuda{mine}" in states:
            torch.cuda.set_rng_state(states[f"cuda{mine}"], self.device)
