"""The loop of a fit: steps, epochs, validation and checkpoints."""

from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.minibatches import BitStream, Part
from vae_pyro.data.split import Split
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.models.vae import VAE
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.parallel.ranks import ALONE, Ranks
from vae_pyro.parallel.signals import Caught, FitInterruptedError
from vae_pyro.runs.folder import RunFolder
from vae_pyro.svi.compiled_svi import CompiledSVI
from vae_pyro.svi.stepper import Compile
from vae_pyro.training.checkpoints import Checkpoints, Generators, State
from vae_pyro.training.config import FitConfig
from vae_pyro.training.early_stopping import EarlyStopping
from vae_pyro.training.failure import NonFiniteLossError, likely_cause, require_finite_weights
from vae_pyro.training.optimizers import OPTIMIZERS
from vae_pyro.training.per_datum import PerDatum
from vae_pyro.training.plans import Plans
from vae_pyro.training.progress import FitProgress
from vae_pyro.training.schedules import SCHEDULES

type Array = np.ndarray[Any, Any]
type OnEpoch = Callable[[dict[str, float]], bool | None]

# Independent random streams of one seed.
NOISE_STREAM, ORDER_STREAM, VALIDATION_STREAM, INITIAL_STREAM, BITS_STREAM = 1, 2, 3, 4, 5

# Several processes have to agree on the time, which costs a message.
_STEPS_BETWEEN_CLOCKS = 64

_TERMS = ("elbo", "reconstruction", "kl")


class Loop:
    """One run of `vae_pyro.fit`: its data, its optimizer and its state.

    Args:
        vae: see `vae_pyro.fit`; likewise ``config`` and ``seed``.
        train: checked.
        validation: checked and fixed.
        run: folder of its checkpoints; ``None`` writes none.
        device: of this process.
        ranks: those that take every step with it.
        generators: whose states a checkpoint keeps; torch's own if not given.
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
        generators: Generators | None = None,
        **ensemble: Any,
    ) -> None:
        self.vae, self.config, self.seed, self.run = vae, config, seed, run
        self.device, self.ranks, self.part = device, ranks, Part(ranks.rank, ranks.of)
        # Makes the random numbers of a process others than those of the first.
        self._own = () if ranks.first else (ranks.rank,)
        vae.to(self.device).train()
        self.train = train.to(self.device)
        self.validation = None if validation is None else validation.to(self.device)
        self.length = config.length(len(train), 0 if validation is None else len(validation))
        self.steps_per_epoch = self.length.steps_per_epoch
        self.optimizer: Optimizer = OPTIMIZERS.build(config.optimizer, list(vae.parameters()))
        self.schedule = SCHEDULES.build(
            config.schedule, self.length.epochs * self.steps_per_epoch, self.steps_per_epoch
        )
        self.objective: Any = OBJECTIVES.build(config.objective)
        self.svi = CompiledSVI(
            vae.model,
            vae.guide,
            self.optimizer,
            PerDatum(self.objective),
            prepare=partial(self.train.observe, dtype=vae.dtype),
            clip_norm=config.clip_norm,
            autocast=torch.bfloat16 if config.precision == "bfloat16" else None,
            skip_nonfinite=True,
            ranks=ranks,
            **ensemble,
        )
        self.state = State()
        self.stopping = EarlyStopping(vae, config, self.length, weighted=self._weighted)
        self.generators = generators or Generators(device, ranks)
        self.checkpoints = Checkpoints(run, vae, self.optimizer, self.generators, config.checkpoint_seconds)
        self.batches: Iterator[tuple[Tensor, ...]] = iter(())
        self._plans = Plans(len(train), config)

    def go(self, progress: FitProgress, caught: Caught, events: Any, on_epoch: OnEpoch | None) -> None:
        """Step through the epochs that are left.

        Raises:
            FitInterruptedError: a signal came; after a whole step and a checkpoint.
            NonFiniteLossError: the loss, a gradient or a weight is not finite.
        """
        state, config = self.state, self.config
        every = 1 if self.ranks.alone else _STEPS_BETWEEN_CLOCKS
        while state.epoch < self.length.epochs and not state.finished:
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
                within = state.batch % every == 0 and state.batch < self.steps_per_epoch
                if self.run and within and config.checkpoint_seconds and self._agreed(self.checkpoints.due):
                    self.require_finite_weights()
                    self.checkpoint()
            self.close_epoch(progress, events)
            self.require_finite_weights()
            if self.run and self._agreed(state.finished or self.checkpoints.due):
                self.checkpoint()
                if self.ranks.first:
                    self.run.write_history(state.history)
            if on_epoch is not None and self._agreed(bool(on_epoch(dict(state.history[-1])))):
                state.finished = True

    def _agreed(self, wish: bool) -> bool:
        """The decision of the first process: clocks differ, and all are to do the same."""
        if self.ranks.alone:
            return wish
        decision = torch.tensor(float(wish), device=self.device)
        self.ranks.copy_from_first(decision)
        return bool(decision)

    # --- steps ----------------------------------------------------------------------------------------------------

    def shuffle(self) -> None:
        """Begin the epoch, or go on where it had come to."""
        epoch, size = self.state.epoch, self.config.batch_size
        bits = BitStream(derive_seed(self.seed, BITS_STREAM, epoch, *self._own), self.device)
        order = derive_seed(self.seed, ORDER_STREAM, epoch)
        self.batches = self.train.epoch(size, order, bits, start=self.state.batch, part=self.part)

    def compile_mode(self, size: int) -> Compile:
        """See `vae_pyro.training.plans.Plans.mode`."""
        return self._plans.mode(size, self.state.compiled)

    def _step(self, caught: Caught) -> int | None:
        """One step; the signal that ends the fit after it, if any of the processes has caught one."""
        count = self.begin_step()
        raw = next(self.batches)
        own = len(raw[0])
        self.ranks.announce(caught.signum)
        if own:
            loss = float(self.svi.take_step(raw, share=own / count, compile=self.compile_mode(count)))
            self.state.compiled |= self._plans.decisions()
        else:
            loss = float(self.svi.step_empty())
        metrics = {name: float(value) for name, value in self.svi.metrics.items()}
        self.end_step(count, raw, loss, metrics)
        return self.ranks.agreed_signal(caught.signum)

    def _rate_and_weight(self, number: int) -> tuple[float, float]:
        """Learning rate and weight of the KL at step ``number`` of the run."""
        weight = self.config.kl_weight_at(number, self.steps_per_epoch)
        return self.config.optimizer.options["lr"] * self.schedule(number), weight

    def begin_step(self) -> int:
        """Set the rates of the next step; the number of data in it."""
        state = self.state
        rate, weight = self._rate_and_weight(state.epoch * self.steps_per_epoch + state.batch)
        self.objective.kl_weight.fill_(weight)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return min(self.config.batch_size, len(self.train) - state.batch * self.config.batch_size)

    def end_step(self, count: int, raw: tuple[Tensor, ...], loss: float, metrics: dict[str, float]) -> None:
        """Add a step's loss and metrics to those of the epoch.

        Raises:
            NonFiniteLossError: the loss or the gradient was not finite, and the step not taken.
        """
        state = self.state
        if not isfinite(metrics.get("gradient_norm", 0.0)):
            raise self._failure(raw, "the gradient", metrics)
        if not isfinite(loss):
            raise self._failure(raw, "the loss", metrics)
        state.batch += 1
        for name, value in (
            ("elbo", metrics["reconstruction"] - metrics["kl"]),
            ("reconstruction", metrics["reconstruction"]),
            ("kl", metrics["kl"]),
            ("bound", -loss * count),
            ("count", count),
        ):
            state.sums[name] = state.sums.get(name, 0.0) + value

    def _failure(self, raw: tuple[Tensor, ...], what: str, metrics: dict[str, float]) -> NonFiniteLossError:
        (x,), _ = self.train.observe(*raw, dtype=self.vae.dtype)
        rate = self.optimizer.param_groups[0]["lr"]
        step = self.state.epoch * self.steps_per_epoch + self.state.batch + 1
        return NonFiniteLossError(
            f"{what} is not finite at step {step} (epoch {self.state.epoch + 1}); likely cause: "
            f"{likely_cause(self.vae, x, metrics, rate)}{self.checkpoints.way_out}"
        )

    # --- epochs ---------------------------------------------------------------------------------------------------

    def close_epoch(self, progress: FitProgress, events: Any) -> None:
        """Validate, and add a row to the history.

        Raises:
            NonFiniteLossError: the validation ELBO is not finite.
        """
        state = self.state
        count = state.sums["count"]
        rate, weight = self._rate_and_weight((state.epoch + 1) * self.steps_per_epoch - 1)
        assert count == len(self.train), "an epoch sees every datum once"
        row: dict[str, float] = {"epoch": state.epoch + 1}
        row |= {name: state.sums[name] / count for name in (*_TERMS, "bound")}
        row |= {"kl_weight": weight, "lr": rate, "seconds": state.seconds}
        if self.validation is not None:
            validated, values = self._validate()
            row |= {f"validation_{name}": value for name, value in validated.items()}
            if not isfinite(validated["elbo"]):
                raise NonFiniteLossError(
                    f"the validation ELBO is {validated['elbo']} after epoch {state.epoch + 1}"
                    f"{self.checkpoints.way_out}"
                )
            progress.validated(validated["elbo"])
            self.stopping.judge(state, validated["elbo"], values)
        state.history.append(row)
        for name, value in row.items():
            if name != "epoch" and events is not None:
                events.add_scalar(name, value, state.epoch + 1)
        state.epoch, state.batch, state.sums, state.seconds = state.epoch + 1, 0, {}, 0.0
        if state.epoch == self.length.epochs or self.stopping.exhausted(state):
            state.finished = True
            state.ending = self.stopping.ending(state, "validation_bound" if self._weighted else "validation_elbo")

    @property
    def _weighted(self) -> bool:
        """Whether epochs are judged by the bound of an importance weighted objective, which the ELBO may not follow."""
        return self.length.judged and self.objective.importance_weighted

    def _validate(self) -> tuple[dict[str, float], Array]:
        """Validation ELBO and its terms, and what each datum is judged by, ``(datum,)``.

        Several processes take a part of the data each.
        """
        assert self.validation is not None
        begin, end = self.part.bounds(len(self.validation))
        names = (*_TERMS, "bound") if self._weighted else _TERMS
        draws = self.config.validation_particles
        if self._weighted:
            draws = max(draws, self.objective.num_particles)
        values = torch.zeros(len(names), len(self.validation), dtype=torch.float64, device=self.device)
        if end > begin:
            found = evaluate(
                self.vae,
                self.validation if self.ranks.alone else self.validation.between(begin, end),
                num_draws=draws,
                seed=derive_seed(self.seed, VALIDATION_STREAM, *self._own),
            )
            for row, name in zip(values, names, strict=True):
                row[begin:end] = torch.from_numpy(found.log_px if name == "bound" else getattr(found, name))
        self.ranks.add(values)
        array = values.cpu().numpy()
        means = {name: float(row.mean()) for name, row in zip(names, array, strict=True)}
        return means, array[names.index("bound" if self._weighted else "elbo")]

    def require_finite_weights(self) -> None:
        """Refuse to go on with, or to keep, weights that are not finite.

        Raises:
            NonFiniteLossError: one is not finite.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        require_finite_weights(self.vae, self.state.epoch, rate, self.checkpoints.way_out)

    def checkpoint(self) -> None:
        """Write everything that resume needs as one file."""
        reference = self.stopping.reference
        self.checkpoints.write(
            self.state, self.stopping.best, None if reference is None else torch.from_numpy(reference)
        )

    def restore(self) -> None:
        """Continue from the checkpoint of the run folder, with the generators as they were."""
        state, best, reference = self.checkpoints.restore()
        done = min(state.batch * self.config.batch_size, len(self.train))
        if state.epoch > self.length.epochs or state.batch > self.steps_per_epoch or state.sums.get("count", 0) != done:
            raise RunError(
                f"the checkpoint in {str(self.run.path if self.run else None)!r} stands at epoch {state.epoch}, step "
                f"{state.batch} with {state.sums.get('count', 0):g} data, which no fit of {len(self.train):,} data in "
                f"batches of {self.config.batch_size} over {self.length.epochs} epochs reaches"
            )
        if self.length.patience is not None and state.best_epoch is not None and best is None:
            raise RunError(f"the checkpoint in {str(self.run.path if self.run else None)!r} lacks its best weights")
        if self.length.judged and state.best_epoch is not None:
            assert self.validation is not None
            if reference is None or reference.shape != (len(self.validation),):
                raise RunError(
                    f"the checkpoint in {str(self.run.path if self.run else None)!r} lacks the validation objective of "
                    f"its {len(self.validation):,} validation data"
                )
            self.stopping.reference = reference.cpu().numpy()
        self.state, self.stopping.best = state, best
