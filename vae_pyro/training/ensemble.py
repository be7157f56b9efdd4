"""Fits that differ in their seed alone, trained at once as one compiled program: each is the fit alone, to rounding."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import pyro
import torch
from torch import Tensor

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import checked_seed, derive_seed, isolated, seeded
from vae_pyro.data.dataset import Dataset, as_split
from vae_pyro.data.resolution import require_observed, require_resolution
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.ranks import ALONE
from vae_pyro.parallel.signals import Caught, FitInterruptedError, watched_signals
from vae_pyro.runs.folder import RunFolder
from vae_pyro.runs.weights import set_weights, weights
from vae_pyro.training.checkpoints import Generators
from vae_pyro.training.config import FitConfig
from vae_pyro.training.failure import NonFiniteLossError
from vae_pyro.training.fitting import FitResult, checked, initialize
from vae_pyro.training.loop import NOISE_STREAM, VALIDATION_STREAM, Loop
from vae_pyro.training.progress import FitProgress
from vae_pyro.training.resume import described, events_of, open_run


class _MemberGenerators(Generators):
    """A member's own generator, under the name that a fit alone gives the one that it draws noise from."""

    def __init__(self, device: torch.device, seed: int) -> None:
        super().__init__(device, ALONE)
        self.noise = torch.Generator(device).manual_seed(seed)

    def states(self) -> dict[str, Tensor]:
        state = self.noise.get_state()
        return {"cpu": state} if self.device.type == "cpu" else {"cpu": torch.get_rng_state(), "cuda": state}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        self.noise.set_state(states[self.device.type])


class _Member(Loop):
    """A fit whose parameters and optimizer state are rows of the ensemble's."""

    generators: _MemberGenerators


def fit_ensemble(
    vaes: Sequence[VAE],
    x: Split,
    *,
    seeds: Sequence[int],
    validation: Split | None = None,
    config: FitConfig | None = None,
    out: Sequence[str | Path] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data: Dataset | None = None,
    progress: bool | None = None,
) -> list[FitResult | NonFiniteLossError]:
    """Fit VAEs of one configuration with different seeds at once.

    Every member has the order, noise, binarization, validation draws and run folder that `vae_pyro.fit` gives it with
    its seed, and ends where that ends, up to the rounding of sums in another order. On a GPU, whose launches a small
    network does not fill, members cost little more than one; on a CPU they cost what they cost one after another.

    Args:
        vaes: one for each seed, changed in place.
        x: training data.
        seeds: of the fits.
        validation: held-out data.
        config: of all; `FitConfig.patience` has to be ``None``, since members stop together. Without ``epochs`` it
            takes `FitConfig.planned`.
        out: run folder of each; ``None`` keeps nothing on disk.
        resume: continue all from their checkpoints, which have to stand at the same epoch and step.
        overwrite: replace runs in ``out``.
        data: where ``x`` came from, for the run folders.
        progress: show the live line; ``None`` does where standard error is a terminal.

    Returns:
        For each seed the result of `vae_pyro.fit`, or the error of a member whose loss was not finite; the others go
        on without it.

    Raises:
        ValueError: numbers of models, seeds and folders that differ, models of several configurations, patience,
            several devices, or programs that cannot be compiled.
        RunError: see `vae_pyro.fit`; or checkpoints that do not stand at the same step.
        FitInterruptedError: SIGINT or SIGTERM, after checkpoints.
    """
    config = (FitConfig() if config is None else config).planned(len(x))
    seeds = [checked_seed(seed) for seed in seeds]
    config.require_full_weights()
    folders = [None] * len(seeds) if out is None else [RunFolder(path) for path in out]
    _require_alike(vaes, seeds, folders, config)
    device = config.torch_device()
    train = checked(vaes[0], as_split(x))
    names = None if data is None else data.facts.columns
    require_observed(train, names)
    require_resolution(train, vaes[0].dtype, names)
    held_out = None if validation is None or len(validation) == 0 else checked(vaes[0], as_split(validation))
    if device.type == "cuda":
        torch.cuda.init()

    members: list[_Member] = []
    with isolated(derive_seed(seeds[0], NOISE_STREAM)), pyro.get_param_store().scope(), ExitStack() as stack:
        for vae, seed, run in zip(vaes, seeds, folders, strict=True):
            fixed = None if held_out is None else held_out.fixed(derive_seed(seed, VALIDATION_STREAM))
            facts = described(vae, config, seed, data, train, fixed)
            continues = open_run(run, facts, stack, resume=resume, overwrite=overwrite)
            noise = _MemberGenerators(device, derive_seed(seed, NOISE_STREAM))
            member = _Member(vae, train, fixed, config, seed, run, device, generators=noise)
            if continues:
                member.restore()
            else:
                with seeded(derive_seed(seed, NOISE_STREAM)):  # noise goes on from here in a fit alone as well
                    initialize(vae, train, seed)
                    if device.type == "cpu":
                        noise.noise.set_state(torch.get_rng_state())
            members.append(member)
        _require_level(members)
        together = _Together(members, config)
        events = [stack.enter_context(events_of(member.run, member.state.epoch)) for member in members]
        caught = stack.enter_context(watched_signals())
        shown = stack.enter_context(
            FitProgress(together.loop.length.epochs, together.loop.steps_per_epoch, show=progress)
        )
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
        together.go(shown, caught, events)
        return [together.result(member) for member in members]


class _Together:
    """The members of an ensemble and the program that steps all of them."""

    def __init__(self, members: list[_Member], config: FitConfig) -> None:
        self.members, self.config = members, config
        self.failed: dict[int, NonFiniteLossError] = {}
        first = members[0]
        self.template = VAE(first.vae.config).to(first.device, first.vae.dtype)
        by_seed = {derive_seed(member.seed, NOISE_STREAM): member for member in members}
        # A loop of its own for the programs, whose rates and weight of the KL are those of all.
        self.loop = Loop(
            self.template,
            first.train,
            None,
            config,
            first.seed,
            None,
            first.device,
            num_ensemble=len(members),
            seeds=list(by_seed),
            initialize=lambda seed: set_weights(self.template, weights(by_seed[seed].vae), "a member"),
            own_batches=True,
        )
        self.svi = self.loop.svi
        assert self.svi.ensemble is not None
        self.rows = self.svi.ensemble
        self.adopted = False

    def go(self, progress: FitProgress, caught: Caught, events: list[Any]) -> None:
        steps = self.loop.steps_per_epoch
        while self.alive and self.reached[0] < self.loop.length.epochs:
            for member in self.alive:
                member.shuffle()
            began = perf_counter() - self.alive[0].state.seconds
            while self.alive and self.reached[1] < steps:
                self.step()
                for member in self.alive:
                    member.state.seconds = perf_counter() - began
                self.show(progress)
                if caught.signum is not None:
                    self.stop(caught.signum)
            for number, member in enumerate(self.members):
                if number not in self.failed:
                    self.close_epoch(member, number, progress, events[number])
        for member in self.members:
            for parameter in member.vae.parameters():  # memory of its own again
                parameter.data = parameter.data.clone()

    def stop(self, signum: int) -> NoReturn:
        """Write checkpoints and leave."""
        for member in self.alive:
            self.checkpoint(member)
        run = self.members[0].run
        raise FitInterruptedError(signum, run.path if run else None)

    @property
    def alive(self) -> list[_Member]:
        """Members whose loss has been finite so far."""
        return [member for number, member in enumerate(self.members) if number not in self.failed]

    def show(self, progress: FitProgress) -> None:
        """The running means of the first member that is alive, and the speed of all together."""
        if self.alive:
            one = self.alive[0].state
            done = one.sums["count"]
            means = {name: one.sums[name] / done for name in ("elbo", "kl", "reconstruction")}
            progress.step(one.epoch, one.batch, means, done * len(self.alive) / max(one.seconds, 1e-9))

    def step(self) -> None:
        """One step of all members, each on its own batch."""
        self.loop.state.epoch, self.loop.state.batch = self.reached
        count = self.loop.begin_step()
        drawn = {id(member): next(member.batches) for member in self.alive}
        spare = next(iter(drawn.values()))  # what a member that failed steps on, to no effect
        raws = [drawn.get(id(member), spare) for member in self.members]
        stacked = [torch.stack(parts) for parts in zip(*raws, strict=True)]
        if not self.adopted:
            self.adopt(stacked)
        mode = self.loop.compile_mode(count) if self.loop.config.compile else True
        losses = self.svi.take_step(stacked, compile=mode).tolist()
        metrics = {name: value.tolist() for name, value in self.svi.metrics.items()}
        for number, (member, raw) in enumerate(zip(self.members, raws, strict=True)):
            if number not in self.failed:
                try:
                    own = {name: values[number] for name, values in metrics.items()}
                    member.begin_step()
                    member.end_step(count, raw, losses[number], own)
                except NonFiniteLossError as error:
                    self.failed[number] = error

    @property
    def reached(self) -> tuple[int, int]:
        """Epoch and step of the members that are alive."""
        state = self.alive[0].state
        return state.epoch, state.batch

    def adopt(self, stacked: list[Tensor]) -> None:
        """Make the members' parameters and states rows of the program's."""
        self.svi.trace(*stacked)
        paths = {id(parameter): path for path, parameter in self.template.named_parameters()}
        path_of = {name: paths[id(leaf)] for name, leaf in self.svi.leaves.items()}
        for number, member in enumerate(self.members):
            own = dict(member.vae.named_parameters())
            leaves = {name: own[path] for name, path in path_of.items()}
            self.rows.adopt(number, leaves, member.optimizer, member.generators.noise)
        self.adopted = True

    def close_epoch(self, member: _Member, number: int, progress: FitProgress, events: Any) -> None:
        """Validation, history and checkpoint of one member, as in a fit alone."""
        try:
            member.close_epoch(progress, events)
            member.require_finite_weights()
        except NonFiniteLossError as error:
            self.failed[number] = error
            return
        if member.run and (member.state.finished or member.checkpoints.due):
            self.checkpoint(member)
            member.run.write_history(member.state.history)

    def checkpoint(self, member: _Member) -> None:
        """Write a checkpoint as that of a fit alone."""
        for state in member.optimizer.state.values():
            state["step"] = self.rows.steps_taken.clone()
        member.checkpoint()

    def result(self, member: _Member) -> FitResult | NonFiniteLossError:
        """Write the run folder of a member that has ended."""
        number = self.members.index(member)
        if number in self.failed:
            return self.failed[number]
        if member.run is not None:
            member.run.save_model(member.vae, member.state.history)
        return FitResult(
            vae=member.vae.eval(),
            history=member.state.history,
            best_epoch=member.state.best_epoch,
            stopped_early=False,
            restored_best=False,
            out=None if member.run is None else member.run.path,
        )


def _require_alike(
    vaes: Sequence[VAE], seeds: Sequence[int], folders: Sequence[RunFolder | None], config: FitConfig
) -> None:
    if not seeds or len(set(seeds)) != len(seeds) or not len(vaes) == len(seeds) == len(folders):
        raise ValueError(
            f"an ensemble requires a model and a folder for each of its different seeds, got {len(vaes)} models, "
            f"{len(folders)} folders and seeds {list(seeds)}"
        )
    if any(vae.config != vaes[0].config or vae.dtype != vaes[0].dtype for vae in vaes):
        raise ValueError("members of an ensemble are of one configuration; fit others alone")
    if config.patience is not None:
        raise ValueError(
            f"members of an ensemble stop together, and patience={config.patience} may stop one; fit alone"
        )
    if config.devices * config.num_nodes > 1:
        raise ValueError("an ensemble is fitted by one process; start one for each device")
    if not config.compile:
        raise ValueError("an ensemble is a compiled program, and compile=False rules it out; fit its members alone")


def _require_level(members: list[_Member]) -> None:
    places = {(member.state.epoch, member.state.batch) for member in members}
    if len(places) > 1:
        raise RunError(
            f"the checkpoints of the ensemble stand at different steps, {sorted(places)} (epoch, step); resume its "
            "members alone"
        )
