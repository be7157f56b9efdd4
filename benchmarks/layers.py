"""``python -m benchmarks.layers``: two layers of latents compared with one at the same budget, nets of Burda et al.

Burda et al. 2016 (arXiv:1509.00519), tanh, one draw in a step, MNIST binarised at every step: 784-200-200-50, and
784-200-200-100 with 100-100-50 above it; the latter also with the guide of a ladder VAE. Runs are fitted one after
another, seed by seed; each has a folder, finished runs are not repeated, and every run updates the table. Rows of other
nets that were measured with the same settings stay.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from analysis.results.estimate import plus_minus
from analysis.stats.crossed import CrossedMean, crossed_mean
from benchmarks import common
from vae_pyro import VAE, DataConfig, Dataset, FitConfig, RunFolder, VAEConfig, evaluate, fit
from vae_pyro.core.files import write_atomically
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE
from vae_pyro.models.presets import preset

type Array = np.ndarray[Any, Any]

_ONE = preset("iwae-200-200-50").model
_LAYERS = {"latent_dims": [50], "hidden": [100, 100], "activation": "tanh"}
NETS: dict[str, dict[str, Any]] = {
    "one": _ONE,
    "two": {**_ONE, "latent_dim": 100, "structure": {"name": "bottom_up", **_LAYERS}},
    "ladder": {**_ONE, "latent_dim": 100, "structure": {"name": "ladder", **_LAYERS}},
}
# Epochs of KL warm-up: without it the ladder's z soon follows p(z | z2) alone, whose scale then shrinks until the loss
# overflows; its paper uses a warm-up as well (Sonderby et al. 2016).
WARMUP = {"ladder": 10.0}
DESCRIPTIONS = {
    "one": "784-200-200-50, one layer",
    "two": "784-200-200-100-100-100-50, `bottom_up`",
    "ladder": "784-200-200-100-100-100-50, `ladder`, KL warm-up 10 epochs",
}
# Test NLL of Burda et al., table 1, VAE rows, k = 1: 3,280 epochs at batch 20.
PUBLISHED = {"one": 86.76, "two": 85.33}
BASELINE = "one"
_POINTWISE = ("log_px", "log_px_se", "elbo", "kl")


@dataclass(frozen=True)
class Outcome:
    """One run, fitted and evaluated.

    Attributes:
        net: its name in `NETS`.
        seed: of initial weights, order and noise.
        seconds: of the fit.
        pointwise: ``log_px``, ``log_px_se``, ``elbo`` and ``kl`` of each test image, nats, ``(datum,)``.
        active: latents with a posterior mean that varies, of all layers together.
    """

    net: str
    seed: int
    seconds: float
    pointwise: dict[str, Array]
    active: int


def carry_out(net: str, seed: int, data: Dataset, given: argparse.Namespace) -> Outcome:
    """Fit and evaluate one run, continuing where it was interrupted."""
    folder = RunFolder(given.runs / f"{net}-seed{seed}")
    config = FitConfig(
        epochs=given.epochs,
        batch_size=given.batch,
        optimizer={"name": "adam", "lr": given.lr, "eps": 1e-4},
        schedule={"name": "cosine", "warmup": 1.0},
        kl_warmup=WARMUP.get(net, given.kl_warmup),
        device=given.device,
    )
    # `fit` refuses to continue a folder with other settings or data.
    result = fit(
        VAE(VAEConfig(x_shape=data.x_shape, **NETS[net]), seed=seed),
        data.train,
        config=config,
        seed=seed,
        out=folder.path,
        resume=folder.config_file.exists(),
        data=data,
    )
    seconds = sum(row["seconds"] for row in result.history)
    test = data.test if given.test_images is None else data.test.take(slice(given.test_images))
    file = folder.path / f"layers-{given.num_samples}-draws-{len(test)}-images.npz"
    if not file.exists():
        began = perf_counter()
        found = evaluate(result.vae, test, num_draws=given.num_samples)
        arrays = {name: getattr(found, name) for name in (*_POINTWISE, "activity")}
        write_atomically(file, _npz(arrays))
        print(f"    evaluated in {common.duration(perf_counter() - began)}", flush=True)
    with np.load(file, allow_pickle=False) as stored:
        pointwise = {name: stored[name] for name in _POINTWISE}
        active = int((stored["activity"] > ACTIVE_VARIANCE).sum())
    return Outcome(net, seed, seconds, pointwise, active)


def _npz(arrays: dict[str, Array]) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def rows_of(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """One row for each net: averages over seeds and images with their errors, and the difference from one layer."""
    groups: dict[str, dict[int, Outcome]] = defaultdict(dict)
    for outcome in outcomes:
        groups[outcome.net][outcome.seed] = outcome
    rows = []
    for net in (net for net in NETS if net in groups):
        group = groups[net]
        own = crossed_mean(*_stack(group, sorted(group)))
        row: dict[str, Any] = {
            "net": net,
            "seeds": sorted(group),
            "log_px": own.summary(),
            "elbo": float(np.mean([outcome.pointwise["elbo"].mean() for outcome in group.values()])),
            "kl": float(np.mean([outcome.pointwise["kl"].mean() for outcome in group.values()])),
            "active": [group[seed].active for seed in sorted(group)],
            "seconds": float(np.mean([outcome.seconds for outcome in group.values()])),
            "published": PUBLISHED.get(net),
            "difference": None,
        }
        shared = sorted(set(group) & set(groups.get(BASELINE, {})))
        if net != BASELINE and shared:
            row["difference"] = _difference(group, groups[BASELINE], shared).summary()
        rows.append(row)
    return rows


def _stack(group: dict[int, Outcome], seeds: list[int]) -> tuple[Array, Array]:
    """log p(x) and its Monte Carlo variance, each ``(seed, datum)``."""
    values = np.stack([group[seed].pointwise["log_px"] for seed in seeds])
    return values, np.stack([group[seed].pointwise["log_px_se"] for seed in seeds]) ** 2


def _difference(group: dict[int, Outcome], baseline: dict[int, Outcome], seeds: list[int]) -> CrossedMean:
    (ours, noise), (theirs, other_noise) = _stack(group, seeds), _stack(baseline, seeds)
    return crossed_mean(ours - theirs, noise + other_noise)


def merged(rows: list[dict[str, Any]], stored: dict[str, Any] | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """These rows, and those of other nets that were measured with the same settings, in the order of the nets."""
    found = {row["net"]: row for row in (stored or {}).get("rows", []) if stored and stored["settings"] == settings}
    found |= {row["net"]: row for row in rows}
    return [found[net] for net in NETS if net in found]


def report(result: dict[str, Any]) -> str:
    """A result as a Markdown table with notes."""
    columns = [
        "net",
        "seeds",
        "test log p(x), nats",
        "ELBO",
        "KL",
        "active",
        "better than one layer by",
        "p",
        "training",
    ]
    columns += ["Burda et al."]
    lines = []
    for row in result["rows"]:
        difference = row["difference"]
        lines.append(
            [
                DESCRIPTIONS[row["net"]],
                str(len(row["seeds"])),
                plus_minus(row["log_px"]["estimate"], row["log_px"]["se"]),
                f"{row['elbo']:.2f}",
                f"{row['kl']:.2f}",
                ", ".join(map(str, row["active"])),
                "" if difference is None else plus_minus(difference["estimate"], difference["se"]),
                "" if difference is None else f"{difference['p_value']:.1g}",
                common.duration(row["seconds"]),
                "" if row["published"] is None else f"{-row['published']:g}",
            ]
        )
    settings = result["settings"]
    foot = (
        f"Objective `elbo`, one draw; {settings['epochs']:,} epochs, batch {settings['batch']}, Adam "
        f"{settings['lr']:g} (eps 1e-4) with a cosine, KL warm-up {settings['kl_warmup']:g} epochs, 60,000 training "
        f"images; log p(x) with {settings['num_samples']:,} draws of the first {settings['test_images']:,} test images "
        "(one fixed binarization). ± is the standard error over seeds, images and draws together; the difference is "
        "paired by seed and image, its p two-sided. The published results are from 3,280 epochs at batch 20."
    )
    machine = f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}."
    return "\n\n".join([common.markdown_table(columns, lines), foot, machine])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=128, help="images in a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of Adam (eps 1e-4), with a cosine")
    parser.add_argument("--kl-warmup", type=float, default=0.0, help="epochs")
    parser.add_argument("--num-samples", type=int, default=1000, help="draws of log p(x)")
    parser.add_argument("--test-images", type=int, help="evaluate on this many, the first; default: all 10,000")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-root", help="folder in which torchvision keeps MNIST; default: VAE_PYRO_DATA")
    parser.add_argument("--runs", type=Path, help="folder of run folders; default: runs/layers/<settings>")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    given = parser.parse_args()
    if given.runs is None:
        warmup = f"-warmup-{given.kl_warmup:g}" if given.kl_warmup else ""
        given.runs = Path("runs") / "layers" / f"{given.epochs}-epochs-batch-{given.batch}-lr-{given.lr:g}{warmup}"
    return given


def main() -> None:
    """Train, evaluate, print, and write after every run."""
    given = arguments()
    root = None if given.data_root is None else str(given.data_root)
    # All 60,000 training images, as in the paper; nothing is chosen on the test images.
    data = DataConfig(source="mnist", root=root, binarize="dynamic", validation_fraction=0.0).load()
    settings = {name: getattr(given, name) for name in ("epochs", "batch", "lr", "kl_warmup", "num_samples")}
    settings["test_images"] = given.test_images or len(data.test)
    result: dict[str, Any] = {
        "benchmark": "layers",
        "settings": settings,
        "machine": common.machine(given.device),
        "revision": common.revision(),
    }
    stored = common.read_json(given.out / "results" / "layers.json")
    outcomes: list[Outcome] = []
    for seed in range(given.seeds):
        for net in given.nets:
            print(f"{net}, seed {seed}", flush=True)
            outcomes.append(carry_out(net, seed, data, given))
            result["rows"] = merged(rows_of(outcomes), stored, settings)
            common.write_json(given.out / "results" / "layers.json", result)
            table = report(result)
            common.replace_block(given.out / "README.md", "layers", table)
            print(table, flush=True)


if __name__ == "__main__":
    main()
