"""``python -m benchmarks.quality``: test log p(x) of the IWAE protocol, beside the published figures.

Burda et al. 2016 (arXiv:1509.00519), one stochastic layer, 784-200-200-50 tanh, MNIST binarised anew at every step.
Runs follow each other in one process; each has a folder, and one that has finished is not repeated.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import ValidationError

from benchmarks import common
from vae_pyro import VAE, DataConfig, Dataset, FitConfig, FitInterruptedError, RunFolder, VAEConfig, evaluate, fit
from vae_pyro.models.presets import preset

PRESET = "iwae-200-200-50"


@dataclass(frozen=True)
class Published:
    """Figures of one row of Burda's table 1, and of the best later run of the same protocol that is known.

    Attributes:
        paper: test NLL in nats, k = 5000 at test.
        rerun: likewise, output bias from the data.
        active: active units in the paper.
    """

    paper: float | None = None
    rerun: float | None = None
    active: int | None = None

    @property
    def figure(self) -> float | None:
        """The paper's, or else the re-run's."""
        return self.rerun if self.paper is None else self.paper


# With one particle the VAE and the IWAE are the same objective.
PUBLISHED = {
    ("elbo", 1): Published(86.76, 86.35, 19),
    ("elbo", 5): Published(86.47),
    ("elbo", 50): Published(86.35),
    ("iwae", 1): Published(86.76, 86.35, 19),
    ("iwae", 5): Published(85.54, 85.18, 22),
    ("iwae", 50): Published(84.78, 84.59, 25),
    ("dreg", 1): Published(None, 86.08),
    ("dreg", 5): Published(None, 84.90),
    ("dreg", 50): Published(None, 84.32),
}


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        method: an objective's name.
        particles: draws of z for each datum in a step.
        seed: of initial weights, order and noise.
        config: how it is fitted.
    """

    method: str
    particles: int
    seed: int
    config: FitConfig

    @property
    def name(self) -> str:
        """What the run is called, and its folder."""
        return f"{self.method}-k{self.particles}-seed{self.seed}"


@dataclass
class Clock:
    """Guesses the time left from what has been seen."""

    def __post_init__(self) -> None:
        self._epoch: dict[int, list[float]] = defaultdict(list)
        self._evaluation: list[float] = []

    def saw(self, outcome: dict[str, Any]) -> None:
        """Learn from a run that is done."""
        self._epoch[outcome["particles"]].append(outcome["train_seconds"] / outcome["epochs"])
        self._evaluation.append(outcome["evaluation_seconds"])

    def left(self, plans: list[Plan]) -> str:
        """In words, for runs that are still to come."""
        if not plans:
            return "done"
        if not self._epoch:
            return "time left: known after the first run"
        seconds = sum(self._seconds_of_epoch(plan.particles) * plan.config.epochs for plan in plans)
        seconds += statistics.mean(self._evaluation) * len(plans)
        return f"about {common.duration(seconds)} left"

    def _seconds_of_epoch(self, particles: int) -> float:
        if particles in self._epoch:
            return statistics.mean(self._epoch[particles])
        # An encoder pass, and a decoder pass for each particle.
        return statistics.mean(
            statistics.mean(seconds) * (1 + particles) / (1 + other) for other, seconds in self._epoch.items()
        )


def plans_of(given: argparse.Namespace) -> list[Plan]:
    """Every run that is asked for, the short ones first; methods that this package lacks are left out and said."""
    plans = []
    for particles in sorted(set(given.k)):
        for method in given.methods:
            if method == "iwae" and particles == 1 and "elbo" in given.methods:
                continue  # the same objective; its row takes the other's runs
            try:
                config = fit_config(given, method, particles)
            except (ValidationError, ValueError) as error:
                text = str(error).strip().splitlines()
                print(f"{method} with {particles} particles is left out: {text[-1].strip()}", file=sys.stderr)
                continue
            plans += [Plan(method, particles, seed, config) for seed in range(given.seeds)]
    return plans


def fit_config(given: argparse.Namespace, method: str, particles: int) -> FitConfig:
    """The preset's own settings for ``--full``, a budget's otherwise."""
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
    """Fit and evaluate one run, or what of it is not done yet.

    Returns:
        Figures, times, and whatever tells the run from others.
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
    # `fit` refuses to continue a folder whose settings or data are others than these.
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
    figures = evaluate(result.vae, test, num_draws=given.num_samples).summary()
    outcome = {
        "method": plan.method,
        "particles": plan.particles,
        "seed": plan.seed,
        "fit": settings,
        "epochs": result.epochs,
        "train_images": len(train),
        "train_seconds": train_seconds,
        "evaluation_seconds": perf_counter() - began,
        "figures": figures,
    }
    common.write_json(file, outcome)
    return outcome


def rows_of(outcomes: list[dict[str, Any]], methods: list[str]) -> list[dict[str, Any]]:
    """Outcomes averaged over seeds, one row for each method and number of particles."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome["method"], outcome["particles"]].append(outcome)
    if "iwae" in methods and ("elbo", 1) in groups and ("iwae", 1) not in groups:
        groups["iwae", 1] = groups["elbo", 1]
    rows = []
    for (method, particles), group in groups.items():
        nll = [-outcome["figures"]["log_px"] for outcome in group]
        published = PUBLISHED.get((method, particles), Published())
        rows.append(
            {
                "method": method,
                "particles": particles,
                "seeds": len(group),
                "nll": statistics.mean(nll),
                "nll_se_seeds": statistics.stdev(nll) / sqrt(len(nll)) if len(nll) > 1 else None,
                "nll_se_monte_carlo": sqrt(sum(o["figures"]["log_px_se"] ** 2 for o in group)) / len(group),
                "nll_se_sampling": statistics.mean(o["figures"]["sampling_se"]["log_px"] for o in group),
                "active_units": [outcome["figures"]["active_units"] for outcome in group],
                "train_seconds": statistics.mean(outcome["train_seconds"] for outcome in group),
                "published": {"paper": published.paper, "rerun": published.rerun, "active": published.active},
            }
        )
    return sorted(rows, key=lambda row: (methods.index(row["method"]), row["particles"]))


def report(result: dict[str, Any]) -> str:
    """A result as a Markdown table with its foot."""
    rows = result["rows"]
    columns = [
        "objective",
        "k",
        "seeds",
        "test NLL, nats",
        "± Monte Carlo",
        "active units",
        "training",
        "paper",
        "best re-run",
        "active units, paper",
    ]
    lines = []
    for row in rows:
        seeds = "" if row["nll_se_seeds"] is None else f" ± {row['nll_se_seeds']:.3f}"
        published = row["published"]
        same = "" if row["method"] != "iwae" or row["particles"] > 1 else " (the runs of `elbo`)"
        same = same if any(other["method"] == "elbo" and other["particles"] == 1 for other in rows) else ""
        lines.append(
            [
                f"`{row['method']}`{same}",
                str(row["particles"]),
                str(row["seeds"]),
                f"{row['nll']:.3f}{seeds}",
                f"{row['nll_se_monte_carlo']:.3f}",
                ", ".join(map(str, row["active_units"])),
                common.duration(row["train_seconds"]),
                *("" if published[key] is None else f"{published[key]:g}" for key in ("paper", "rerun", "active")),
            ]
        )
    settings = result["settings"]
    limited = "" if settings["train_images"] == 60_000 else f" ON {settings['train_images']:,} IMAGES ONLY"
    foot = (
        f"Epochs{limited}: {settings['epochs']:,}; batch {settings['batch_size']}, {settings['optimizer']}, "
        f"{settings['schedule']}; log p(x) with {settings['num_samples']:,} draws on the first "
        f"{settings['test_images']:,} test images (one fixed binarization), ± over seeds; another test set would move "
        f"all rows together by about {max((row['nll_se_sampling'] for row in rows), default=0.0):.2f} nats"
    )
    return "\n\n".join(
        [
            common.markdown_table(columns, lines),
            f"{foot}. {order(rows)}",
            f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}.",
        ]
    )


def order(rows: list[dict[str, Any]]) -> str:
    """Our order of the rows beside the published one, best first."""
    known = [
        (f"`{row['method']}` {row['particles']}", row["nll"], found.figure)
        for row in rows
        if (found := PUBLISHED.get((row["method"], row["particles"]))) is not None
        and found.figure is not None
        # One entry for the objective that goes by two names.
        and (row["method"], row["particles"]) != ("iwae", 1)
    ]
    if len(known) < 2:
        return ""
    ours = [name for name, _, _ in sorted(known, key=lambda entry: entry[1])]
    published = [name for name, _, _ in sorted(known, key=lambda entry: entry[2] or 0.0)]
    same = "the published order (the paper's figure, else the re-run's)"
    if ours == published:
        return f"Best first: {', '.join(ours)}: {same}."
    return f"Best first: {', '.join(ours)}; {same} is {', '.join(published)}."


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["elbo", "iwae", "dreg"], metavar="NAME", help="objectives")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5], help="particles of a training step")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--full", action="store_true", help="the paper's 3,280 epochs, batch, rates and stages")
    parser.add_argument("--budget-epochs", type=int, default=30, help="otherwise: epochs,")
    parser.add_argument("--batch", type=int, default=128, help="images in a step,")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of Adam (eps 1e-4),")
    parser.add_argument("--schedule", default="cosine", help="its schedule,")
    parser.add_argument("--warmup", type=float, default=1.0, help="and epochs of its warm-up")
    parser.add_argument("--num-samples", type=int, default=5000, help="draws of log p(x)")
    parser.add_argument("--test-images", type=int, help="evaluate on the first so many; default: all 10,000")
    parser.add_argument("--limit", type=int, help="a trial: train on the first so many images")
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
        raise SystemExit("nothing to run: no method is known")
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
        clock.saw(outcome)
        outcomes.append(outcome)
        figures = outcome["figures"]
        print(
            f"    NLL {-figures['log_px']:.3f} ± {figures['log_px_se']:.3f} Monte Carlo, "
            f"{figures['active_units']} active units, evaluation {common.duration(outcome['evaluation_seconds'])}",
            flush=True,
        )
        result |= {"runs": outcomes, "rows": rows_of(outcomes, given.methods)}
        if written:
            common.write_json(given.out / "results" / f"{name}.json", result)
            common.replace_block(given.out / "README.md", name, report(result))
    print(f"\n{report(result)}")
    if not written:
        print("\nA trial: nothing was written.")


if __name__ == "__main__":
    main()
