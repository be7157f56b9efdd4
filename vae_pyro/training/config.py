"""How to fit: a validated configuration."""

import os
from math import ceil
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator

from vae_pyro.core.config import Config, choice_of
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.parallel.ranks import ALONE, Ranks, launch, launched
from vae_pyro.training.length import Length, automatic
from vae_pyro.training.optimizers import OPTIMIZERS
from vae_pyro.training.schedules import SCHEDULES


class FitConfig(Config):
    """How to fit. Each choice is a name, ``"name:option=value"``, or a mapping with ``name`` and options.

    The loss of a step is the negative objective averaged over the batch, so that learning rates and the optimizer's
    eps mean the same at every batch size.

    Attributes:
        epochs: passes over the training data. ``None`` takes as many as the data require, see
            `vae_pyro.training.length`: with 5 validation data or more, the fit stops where their objective no longer
            rises beyond its paired standard error, and keeps the best weights.
        batch_size: data in a step; the last batch of an epoch is smaller where they do not divide, and is not left out.
        optimizer: see `vae_pyro.training.optimizers`.
        schedule: of the learning rate, see `vae_pyro.training.schedules`.
        objective: see `vae_pyro.objectives`.
        kl_warmup: epochs over which the weight of the KL rises linearly from 0 to 1 (Bowman et al. 2016,
            arXiv:1511.06349).
        kl_cycle: epochs after which the weight starts from 0 again (cyclical annealing, Fu et al. 2019,
            arXiv:1903.10145); ``None`` warms up once.
        compile: let `vae_pyro.svi.compiled_svi.CompiledSVI` take the steps; ``False`` takes Pyro's stock step. Inductor
            compiles a shape of batch where the fit is long enough to repay it (a program that an earlier fit has left
            in the cache starts at once); else the traced step runs without it, which rounds otherwise.
        clip_norm: largest Euclidean norm of the gradient; ``None`` does not clip.
        patience: epochs without a better validation ELBO after which the fit stops and the best weights come back;
            ``None`` runs to the end and keeps the last, unless ``epochs`` is ``None``. Epochs of the KL warm-up do not
            count.
        validation_particles: draws for each datum in the validation ELBO, the same draws at every epoch.
        device: ``auto`` takes CUDA where there is one.
        checkpoint_seconds: time between checkpoints; 0 writes one at the end of every epoch. The last epoch ends with
            one, whatever the time.
        precision: ``bfloat16`` runs the networks' matrix products in it; densities, weights and sums keep float32.
        devices: processes that step together on each machine, each with its share of every batch
            (`vae_pyro.parallel.ranks`): GPUs, or processes on a CPU. ``batch_size`` is that of all of them together.
        num_nodes: machines.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
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

    def kl_weight_at(self, step: int, steps_per_epoch: int) -> float:
        """Weight of the KL at a step of the run, counted from 0: it warms up once, or in every cycle."""
        warm, position = self.kl_warmup * steps_per_epoch, float(step)
        if self.kl_cycle is not None:
            position %= self.kl_cycle * steps_per_epoch
        return min(1.0, position / warm) if warm else 1.0

    def require_full_weights(self) -> None:
        """Refuse warm-ups that the fit or a cycle is too short for, and cycles of nothing.

        The weight of the KL, or the factor of the learning rate, would not reach 1, and another objective be fitted
        than the one that is named.

        Raises:
            ValueError: the message names the lengths in epochs.
        """
        if self.kl_cycle is not None and not self.kl_warmup:
            raise ValueError(
                f"kl_cycle={self.kl_cycle:g} repeats the KL warm-up, and there is none; pass kl_warmup, at most "
                f"{self.kl_cycle:g} epochs, or leave kl_cycle out"
            )
        if self.kl_cycle is not None and self.kl_warmup > self.kl_cycle:
            raise ValueError(
                f"kl_warmup={self.kl_warmup:g} is longer than kl_cycle={self.kl_cycle:g} epochs, so that the weight of "
                "the KL never reaches 1; lower kl_warmup or raise kl_cycle"
            )
        for name, length, what in (
            ("kl_warmup", self.kl_warmup, "the weight of the KL"),
            ("schedule.warmup", self._rate_warmup, "the learning rate"),
        ):
            if self.epochs is not None and length > self.epochs:
                raise ValueError(
                    f"{name}={length:g} is longer than the fit of epochs={self.epochs}, so that {what} never reaches "
                    f"its full value; lower {name} or raise epochs"
                )

    def length(self, num_train: int, num_validation: int = 0) -> Length:
        """How long a fit of so many data may last."""
        steps = ceil(num_train / self.batch_size)
        if self.epochs is not None:
            return Length(self.epochs, steps, self.patience, automatic=False)
        found = automatic(
            steps,
            num_validation,
            max(self.kl_warmup, self._rate_warmup),
            open_ended=SCHEDULES[self.schedule.name].open_ended,
        )
        return found if self.patience is None else Length(found.epochs, steps, self.patience, automatic=False)

    def planned(self, num_train: int) -> Self:
        """The same with a number of epochs, which no validation data shorten: for fits that end together."""
        return self.replace(epochs=self.length(num_train).epochs) if self.epochs is None else self

    @property
    def _rate_warmup(self) -> float:
        """Epochs of the learning rate's warm-up."""
        return float(self.schedule.options.get("warmup", 0.0))

    def epoch_counts(self, epoch: int, steps_per_epoch: int) -> bool:
        """Whether the validation ELBO after an epoch, counted from 1, competes for the best: not in the warm-up."""
        return self.kl_weight_at(epoch * steps_per_epoch, steps_per_epoch) >= 1

    def together(self) -> tuple[Ranks, torch.device]:
        """The processes of the fit, started where they are not there yet, and the device of this one.

        Raises:
            ValueError: see `torch_device` and `vae_pyro.parallel.ranks.launch`.
        """
        device = self.torch_device()
        if self.devices * self.num_nodes == 1 and launched().alone:
            others = int(os.environ.get("WORLD_SIZE", "1"))
            if others > 1 and "TORCHELASTIC_RUN_ID" in os.environ:  # all of them would write to the same folder
                raise ValueError(f"torchrun has started {others} processes; say so with devices and num_nodes")
            return ALONE, device
        if self.device.startswith("cuda:"):
            raise ValueError(
                f"device={self.device!r} is one device, and devices={self.devices} are asked for; use 'cuda'"
            )
        return launch(self.devices, self.num_nodes, device.type)

    def torch_device(self) -> torch.device:
        """The device that this machine gives.

        Raises:
            ValueError: CUDA was asked for and there is none.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device={self.device!r}, but torch finds no CUDA here; use 'cpu' or 'auto'")
        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device={self.device!r}, but torch finds {torch.cuda.device_count()} CUDA devices here")
        return device
