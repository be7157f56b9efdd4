"""`refit_guide`: train the guide alone, on draws of the fitted model or on data."""

from collections.abc import Iterator
from dataclasses import replace
from math import cos, isfinite, pi
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vae_pyro.core.isolation import checked_seed, derive_seed, isolated
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import Pair, PairLike, as_pair
from vae_pyro.densities.walk import PairData, bind
from vae_pyro.objectives.base import MonteCarloObjective
from vae_pyro.training.refit.families import with_guide
from vae_pyro.training.refit.methods import METHODS, Batch, Method, objective_of, shares_of
from vae_pyro.training.refit.parameters import OwnParameters, own_parameters
from vae_pyro.training.refit.quality import GuideQuality, assess, evidence, gains
from vae_pyro.training.refit.result import RefitResult
from vae_pyro.training.refit.simulator import Simulator

# Streams of the seed.
_TRAIN, _ORDER, _CHECKS, _SIMULATED, _FINAL, _FINAL_SIMULATED = range(6)
# Data and draws that a check uses, and draws that the comparison at the end uses.
_CHECK_DATA, _CHECK_DRAWS, _FINAL_DRAWS = 1000, 8, 50
_ROWS = 5


def refit_guide(
    pair: PairLike,
    train: Split | Tensor | Any = None,
    *,
    validation: Split | Tensor | Any,
    method: Method = "half_asleep",
    objective: str = "stl",
    posterior: Any = None,
    encoder: Any = None,
    num_steps: int = 3000,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    num_simulations: int = 500,
    num_checks: int = 15,
    patience: int = 6,
    clip_norm: float | None = None,
    seed: int = 0,
) -> RefitResult:
    """Train the guide alone; the model stays as it is, to the bit.

    What a guide loses on held-out data is mostly that its encoder overfits the training data. The fitted model is a
    simulator with unlimited data, on which the guide can be trained to the best of its family. Parameters move on which
    q(z | x) depends and p(x, z) does not; modules are in evaluation mode. Adam's rate decays to zero as a cosine.

    Checks at even distances measure the guide on validation data and on fresh draws of the model; the one with the
    highest ELBO less half of the symmetric KL is chosen, and training stops where so many checks have brought none that
    is better. At the end it is compared with the former guide, by other draws: the former one stays where the new one
    is worse by either criterion beyond two standard errors, or better by none.

    Methods, of which several can be mixed by a share of each batch (``{"half_asleep": 0.5, "wake": 0.5}``):

    - ``half_asleep``: the ELBO of draws of the model (Zhang, Hayes & Barber 2022);
    - ``sleep``: log q(z | x) of draws (z, x) of the model (Hinton et al. 1995; Papamakarios & Murray 2016), which takes
      guides that have no reparameterised draws;
    - ``wake``: the ELBO of the training data.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`, and whose model draws
            data, but for ``wake``. Its guide is changed in place, unless another one is chosen.
        train: data ``(datum, *x_shape)``, which ``wake`` requires; their masks and classes, or those of the validation
            data, are those of simulated data.
        validation: data that decide which guide is kept.
        method: see above.
        objective: of ``half_asleep`` and ``wake``: ``stl``, the ELBO with the gradient of Roeder et al. 2017, or
            another reduction of log densities such as ``dreg:num_particles=5``.
        posterior: another family of q(z | x) for the guide of a `VAE`, such as ``full_rank`` or ``flow``.
        encoder: another body of that guide, such as ``mlp:hidden=[512,512]``. With either, the result holds another
            VAE, whose guide starts with those weights of the former that it has a place for.
        num_steps: of Adam, at most.
        batch_size: data in a step, of all methods together.
        learning_rate: at the start.
        num_simulations: draws of the model for the symmetric KL, at each check and at the end; 0 leaves it out.
        num_checks: measurements of the guide.
        patience: checks without a better guide after which training stops.
        clip_norm: largest Euclidean norm of the gradient; ``None`` does not clip.
        seed: of everything that is drawn.

    Returns:
        Both guides' quality, and the pair with the one that is kept.

    Raises:
        ValueError: a guide that is not amortized or has no parameter of its own, a model that draws no data, ``wake``
            without training data, draws without a gradient, or losses that are not finite.

    References:
        Zhang, Hayes & Barber 2022, Generalization gap in amortized inference, sec. 4 (reverse half-asleep).
        arXiv:2205.11640
        Hinton, Dayan, Frey & Neal 1995, The wake-sleep algorithm for unsupervised neural networks, Science 268.
        doi:10.1126/science.7761831
        Papamakarios & Murray 2016, Fast epsilon-free inference of simulation models with Bayesian conditional density
        estimation. arXiv:1605.06376
        Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders. arXiv:1801.03558
    """
    began, seed, shares = perf_counter(), checked_seed(seed), shares_of(method)
    for name, value, least in (("num_steps", num_steps, 1), ("num_checks", num_checks, 1), ("patience", patience, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is positive, got {learning_rate}")
    sizes = {name: max(round(batch_size * share), 1) for name, share in shares.items()}
    former = as_pair(pair)
    chosen = with_guide(former, posterior=posterior, encoder=encoder, seed=derive_seed(seed, _TRAIN))
    data = bind(chosen, validation, seed=derive_seed(seed, _CHECKS))
    data.programs.require("amortized", "latents")
    source = None if train is None else as_split(train).to(data.device)
    if source is not None:
        data.pair.check_data(source)
    elif "wake" in shares:
        raise ValueError("method 'wake' trains on data; pass train=, or choose method='half_asleep'")
    job = _Refit(data, source, shares, sizes, objective_of(objective), seed, num_simulations)
    before = job.final(data if chosen is former else replace(data, pair=former, programs=former.programs(data.split)))
    return job.go(former, before, num_steps, learning_rate, num_checks, patience, clip_norm, began)


class _Refit:
    """The parts of one refit."""

    def __init__(
        self,
        data: PairData,
        train: Split | None,
        shares: dict[str, float],
        sizes: dict[str, int],
        objective: MonteCarloObjective,
        seed: int,
        num_simulations: int,
    ) -> None:
        self.data, self.train, self.shares, self.sizes = data, train, shares, sizes
        self.objective, self.seed, self.num_simulations = objective, seed, num_simulations
        x, given = data.batch(slice(0, min(_ROWS, len(data))))
        with isolated(derive_seed(seed, _TRAIN)):
            self.parameters: OwnParameters = own_parameters(data.programs, x, given)
            self.simulator = self._simulator()
            self.two_sided = self._two_sided(num_simulations)
        self.checked = data.split.sample(_CHECK_DATA, derive_seed(seed, _CHECKS))

    def _simulator(self) -> Simulator | None:
        needed = any(METHODS[name].simulated for name in self.shares)
        try:
            return Simulator(self.data, self.data.split if self.train is None else self.train)
        except ValueError:
            if needed:
                raise
            return None  # the validation ELBO alone decides

    def _two_sided(self, num_simulations: int) -> bool:
        """Whether the evidence of simulated data can be had from both sides."""
        if self.simulator is None or not num_simulations:
            return False
        try:
            evidence(self.data, self.simulator.draw(2), 1)
        except ValueError:  # log q(z | x) at given latents is unknown
            return False
        return True

    def go(
        self,
        pair: Pair,
        before: GuideQuality,
        num_steps: int,
        learning_rate: float,
        num_checks: int,
        patience: int,
        clip_norm: float | None,
        began: float,
    ) -> RefitResult:
        own = self.parameters
        optimizer = torch.optim.Adam(own.own, lr=learning_rate)
        every = max(num_steps // num_checks, 1)
        history: list[dict[str, float]] = []
        former = best = own.values()
        least, best_step, stale, skipped = self._check().loss, 0, 0, 0
        with own.training(), isolated(derive_seed(self.seed, _TRAIN)), self.data.programs.state.evaluating():
            batches = {name: self._batches(name, size) for name, size in self.sizes.items()}
            total, count = torch.zeros((), dtype=torch.float64, device=self.data.device), 0
            for step in range(1, num_steps + 1):
                rate = learning_rate * 0.5 * (1 + cos(pi * (step - 1) / num_steps))
                optimizer.param_groups[0]["lr"] = rate
                loss = self._loss(batches)
                taken = self._step(loss, optimizer, clip_norm)
                skipped += not taken
                if taken:
                    total, count = total + loss.detach().double(), count + 1
                if step % every and step < num_steps:
                    continue
                if not count:
                    raise ValueError(
                        f"no loss or gradient was finite in {every} steps up to step {step}; lower learning_rate (now "
                        f"{learning_rate:g}), or pass clip_norm"
                    )
                quality = self._check()
                history.append(
                    {
                        "step": step,
                        "lr": rate,
                        "loss": float(total) / count,
                        "validation_elbo": float(quality.elbo.mean()),
                        "symmetric_kl": quality.symmetric_kl,
                        "seconds": perf_counter() - began,
                    }
                )
                total, count, stale = torch.zeros_like(total), 0, stale + 1
                if quality.loss < least:
                    least, best, best_step, stale = quality.loss, own.values(), step, 0
                if stale >= patience:
                    break
        own.set(best)
        after = self.final(self.data)
        outcomes = {gain.outcome for gain in gains(before, after).values()}
        replaced = "worse" not in outcomes and "better" in outcomes
        if not replaced:
            own.set(former)
        return RefitResult(
            pair=self.data.pair if replaced else pair,
            shares=self.shares,
            before=before,
            after=after,
            history=history,
            best_step=best_step,
            replaced=replaced,
            num_parameters=sum(value.numel() for value in own.own),
            num_skipped=skipped,
            seconds=perf_counter() - began,
        )

    # --- steps ----------------------------------------------------------------------------------------------------

    def _batches(self, name: str, size: int) -> Iterator[Batch]:
        if METHODS[name].simulated:
            assert self.simulator is not None
            yield from self.simulator.batches(size)
        assert self.train is not None
        epoch = 0
        while True:
            bits = BitStream(derive_seed(self.seed, _ORDER, epoch, 1), self.data.device)
            for raw in self.train.epoch(size, derive_seed(self.seed, _ORDER, epoch), bits):
                (x,), given = self.train.observe(*raw, dtype=self.data.dtype)
                yield Batch(torch.where(given["mask"], x, torch.zeros_like(x)) if "mask" in given else x, given, {})
            epoch += 1

    def _loss(self, batches: dict[str, Iterator[Batch]]) -> Tensor:
        """Mean over the data of a step, nats."""
        parts = []
        for name, found in batches.items():
            parts.append(METHODS[name].loss(self.data.programs, self.objective, next(found)))
        return torch.cat(parts).mean()

    def _step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> bool:
        """Take a step; whether loss and gradient were finite, without which it is not taken."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = float("inf") if clip_norm is None else clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.own, limit)
        if not isfinite(float(loss.detach() + norm)):
            return False
        optimizer.step()
        return True

    # --- quality --------------------------------------------------------------------------------------------------

    def _check(self) -> GuideQuality:
        return self._assess(self.data, self.checked, _CHECK_DRAWS, _CHECKS, _SIMULATED)

    def final(self, data: PairData) -> GuideQuality:
        """Quality of a guide of the same model, by draws that no check has seen."""
        return self._assess(data, data.split, _FINAL_DRAWS, _FINAL, _FINAL_SIMULATED)

    def _assess(self, data: PairData, validation: Split, num_draws: int, stream: int, simulated: int) -> GuideQuality:
        """By the same draws each time, so that guides are compared datum by datum."""
        with isolated(derive_seed(self.seed, simulated)):
            drawn = None
            if self.two_sided:
                assert self.simulator is not None
                drawn = self.simulator.draw(self.num_simulations)
            return assess(data, validation, drawn, num_draws=num_draws, seed=derive_seed(self.seed, stream))
