"""``python -m benchmarks.quality``: test log p(x) of the IWAE protocol, compared with published results.

Burda et al. 2016 (arXiv:1509.00519), one stochastic layer, 784-200-200-50 tanh, MNIST binarised at every step. Runs are
fitted one after another; each has a folder, and finished runs are not repeated.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import ValidationError

from benchmarks import common
from benchmarks.quality.report import report, rows_of
from vae_pyro import VAE, DataConfig, Dataset, FitConfig, FitInterruptedError, RunFolder, VAEConfig, evaluate, fit
from vae_pyro.models.presets import preset

PRESET = "iwae-200-200-50"


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        method: an objective's name.
        particles: draws of z for each datum in a step.
        seed: of initial weights, order and noise.
        config: of the fit.
    """

    method: str
    particles: int
    seed: int
    config: FitConfig

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return f"{self.method}-k{self.particles}-seed{self.seed}"


@dataclass
class Clock:
    """Estimates the remaining time from finished runs."""

    def __post_init__(self) -> None:
        self._epoch: dict[int, list[float]] = defaultdict(list)
        self._evaluation: list[float] = []

    def record(self, outcome: dict[str, Any]) -> None:
        """Record a finished run."""
        self._epoch[outcome["particles"]].append(outcome["train_seconds"] / outcome["epochs"])
        self._evaluation.append(outcome["evaluation_seconds"])

    def left(self, plans: list[Plan]) -> str:
        """Remaining time of the runs to come, in words."""
        if not plans:
            return "done"
        if not self._epoch:
            return "remaining time known after the first run"
        seconds = sum(self._seconds_of_epoch(plan.particles) * (plan.config.epochs or 0) for plan in plans)
        seconds += statistics.mean(self._evaluation) * len(plans)
        return f"about {common.duration(seconds)} left"

    def _seconds_of_epoch(self, particles: int) -> float:
        if particles in self._epoch:
            return statistics.mean(self._epoch[particles])
        # One encoder pass, and a decoder pass for each particle.
        return statistics.mean(
            statistics.mean(seconds) * (1 + particles) / (1 + other) for other, seconds in self._epoch.items()
        )


def plans_of(given: argparse.Namespace) -> list[Plan]:
    """The requested runs, the short ones first; methods that do not exist are left out with a message."""
    plans = []
    for particles in sorted(set(given.k)):
        for method in given.methods:
            if method == "iwae" and particles == 1 and "elbo" in given.methods:
                continue  # the same objective; its row reuses the runs
            try:
                config = fit_config(given, method, particles)
            except (ValidationError, ValueError) as error:
                text = str(error).strip().splitlines()
                print(f"{method} with {particles} particles is left out: {text[-1].strip()}", file=sys.stderr)
                continue
            plans += [Plan(method, particles, seed, config) for seed in range(given.seeds)]
    return plans


def fit_config(given: argparse.Namespace, method: str, particles: int) -> FitConfig:
    """The settings of the preset for ``--full``, those of the budget otherwise."""
    options: dict[str, Any] = dict(preset(PRESET).fit)
    if not given.full:
        options |= {
            "epochs": given.budget_epochs,
            "batch_size": given.batch,
            "optimizer": {"name": "adam", "lr": given.lr, "eps": 1e-4},
            "schedule": {"name": given.schedule, "warmup": given.warmup},
        }
    options |= {"objective": {"name": method, "num_particles": particles}, "device": given.device}
    return FitConfig(**options)


def carry_out(plan: Plan, data: Dataset, given: argparse.Namespace) -> dict[str, Any]:
    """Fit and evaluate one run, continuing where it was interrupted.

    Returns:
        Results, durations, and the settings of the run.
    """
    folder = RunFolder(given.runs / plan.name)
    train = data.train if given.limit is None else data.train.take(slice(given.limit))
    test = data.test if given.test_images is None else data.test.take(slice(given.test_images))
    file = folder.path / f"quality-{given.num_samples}-draws-{len(test)}-images.json"
    config = VAEConfig(x_shape=data.x_shape, **preset(PRESET).model)
    settings = plan.config.model_dump(mode="json")
    stored = common.read_json(file)
    if stored is not None and (stored["fit"], stored["train_images"]) == (settings, len(train)):
        return stored
    # `fit` refuses to continue a folder with other settings or data.
    result = fit(
        VAE(config, seed=plan.seed),
        train,
        config=plan.config,
        seed=plan.seed,
        out=folder.path,
        resume=folder.config_file.exists(),
        data=data if given.limit is None else None,
    )
    train_seconds = sum(row["seconds"] for row in result.history)
    print(f"    {result.epochs} epochs took {common.duration(train_seconds)}; evaluating", flush=True)
    began = perf_counter()
    held_out = evaluate(result.vae, test, num_draws=given.num_samples).summary()
    outcome = {
        "method": plan.method,
        "particles": plan.particles,
        "seed": plan.seed,
        "fit": settings,
        "epochs": result.epochs,
        "train_images": len(train),
        "train_seconds": train_seconds,
        "evaluation_seconds": perf_counter() - began,
        "figures": held_out,
    }
    common.write_json(file, outcome)
    return outcome


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["elbo", "iwae", "dreg"], metavar="NAME", help="objectives")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5], help="particles of a training step")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--full", action="store_true", help="the paper's 3,280 epochs, batch, rates and stages")
    parser.add_argument("--budget-epochs", type=int, default=30, help="otherwise: epochs")
    parser.add_argument("--batch", type=int, default=128, help="images in a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of Adam (eps 1e-4)")
    parser.add_argument("--schedule", default="cosine", help="its schedule")
    parser.add_argument("--warmup", type=float, default=1.0, help="epochs of its warm-up")
    parser.add_argument("--num-samples", type=int, default=5000, help="draws of log p(x)")
    parser.add_argument("--test-images", type=int, help="evaluate on this many, the first; default: all 10,000")
    parser.add_argument("--limit", type=int, help="a trial run: train on this many images, the first")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-root", help="folder in which torchvision keeps MNIST; default: VAE_PYRO_DATA")
    parser.add_argument("--runs", type=Path, help="folder of run folders; default: runs/quality/<settings>")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    given = parser.parse_args()
    if given.runs is None:
        trial = "" if given.limit is None else f"-{given.limit}-images"
        budget = f"{given.budget_epochs}-epochs-batch-{given.batch}-lr-{given.lr:g}-{given.schedule}-{given.warmup:g}"
        given.runs = Path("runs") / "quality" / (("full" if given.full else budget) + trial)
    return given


def main() -> None:
    """Train, evaluate, print, and write after every run."""
    given = arguments()
    name = "quality-full" if given.full else "quality"
    written = given.limit is None or given.out != common.HERE
    plans = plans_of(given)
    if not plans:
        raise SystemExit("error: none of --methods is an objective")
    root = None if given.data_root is None else str(given.data_root)
    # All 60,000 training images, as in the paper; nothing is chosen on the test images.
    data = DataConfig(source="mnist", root=root, binarize="dynamic", validation_fraction=0.0).load()
    clock, outcomes = Clock(), []
    config = plans[0].config
    device = str(config.torch_device())
    result: dict[str, Any] = {
        "benchmark": name,
        "settings": {
            "preset": PRESET,
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "optimizer": str(config.optimizer),
            "schedule": str(config.schedule),
            "num_samples": given.num_samples,
            "train_images": len(data.train) if given.limit is None else given.limit,
            "test_images": len(data.test) if given.test_images is None else given.test_images,
        },
        "machine": common.machine(device),
        "revision": common.revision(),
    }
    for number, plan in enumerate(plans):
        print(f"[{number + 1}/{len(plans)}] {plan.name}; {clock.left(plans[number:])}", flush=True)
        try:
            outcome = carry_out(plan, data, given)
        except FitInterruptedError:
            print(f"stopped in {plan.name}; the same command continues there", file=sys.stderr)
            raise SystemExit(130) from None
        clock.record(outcome)
        outcomes.append(outcome)
        held_out = outcome["figures"]
        print(
            f"    NLL {-held_out['log_px']:.3f} ± {held_out['log_px_se']:.3f} Monte Carlo, "
            f"{held_out['active_units']} active units, evaluation {common.duration(outcome['evaluation_seconds'])}",
            flush=True,
        )
        result |= {"runs": outcomes, "rows": rows_of(outcomes, given.methods)}
        if written:
            common.write_json(given.out / "results" / f"{name}.json", result)
            common.replace_block(given.out / "README.md", name, report(result))
    print(f"\n{report(result)}")
    if not written:
        print("\nTrial run: nothing was written.")


if __name__ == "__main__":
    main()
