"""``python -m benchmarks.labels``: test error on MNIST from 100 and 1,000 labels, by M2 and M1+M2.

Two models of Kingma et al. 2014 (arXiv:1406.5298): M2, and M1+M2, which is an M2 of the latents of an unsupervised VAE
(M1). What differs from the paper's is in `SETTINGS` and in the note under the table. Settings were chosen on images
that are held out of the 60,000 training images, with labels of draw 0; this program alone looks at the test images.
Every fit that has finished is kept in the results, and not repeated.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor

from analysis import class_scores
from benchmarks import common
from vae_pyro import VAE, DataConfig, Dataset, FitConfig, Split, VAEConfig, fit
from vae_pyro.applications.classification import classify
from vae_pyro.applications.classification_result import Classification
from vae_pyro.core.isolation import derive_seed, seeded
from vae_pyro.data.labels import balanced, repeat_labelled

# Test error in percent of Kingma et al. 2014, table 1, by labels.
PUBLISHED = {"m2": {100: 11.97, 1000: 4.94}, "m1m2": {100: 3.33, 1000: 2.40}}
NAMES = {"m2": "M2", "m1m2": "M1+M2"}
# Labelled data are repeated until they are this share of what an epoch sees.
SHARE = 1 / 6
_LABEL_STREAM, _NOISE_STREAM = 1, 2
# A latent of M1 whose posterior mean varies by less carries nothing (Burda et al. 2016, sec. 2.1).
_ACTIVE = 0.01
_BLOCK = 5000

# M1, without labels, shared by all fits of M1+M2.
M1: dict[str, Any] = {
    "model": {"latent_dim": 20, "encoder": "mlp:hidden=[500,500]"},
    "fit": {"epochs": 25, "batch_size": 128, "optimizer": "adam:lr=0.001", "schedule": "cosine", "kl_warmup": 3},
}
# Stages of a fit follow each other: epochs, and alpha of the objective.
SETTINGS: dict[str, Any] = {
    "m1m2": {
        "model": {
            "latent_dim": 10,
            "likelihood": "gaussian:scale=predicted",
            "encoder": "mlp:hidden=[300]",
            "structure": {"name": "m2", "num_classes": 10, "hidden": 300, "classifier": "mlp:hidden=[500]"},
        },
        "stages": {100: [(15, 5.0)], 1000: [(15, 25.0)]},
        "batch_size": 120,
        "lr": 1e-3,
    },
    "m2": {
        "model": {
            "latent_dim": 50,
            "encoder": "mlp:hidden=[256]",
            "structure": {"name": "m2", "num_classes": 10, "hidden": 256, "classifier": "mlp:hidden=[500]"},
        },
        # The paper's weight, of labelled data that are repeated to `SHARE`.
        "stages": {100: [(20, 0.1 / SHARE)], 1000: [(20, 0.1 / SHARE)]},
        "batch_size": 120,
        "lr": 2e-3,
    },
}


def stages(model: VAE, train: Split, model_name: str, labels: int, draw: int, given: argparse.Namespace) -> float:
    """Fit in the stages of the settings; the bound at the end, in nats per datum."""
    settings, bound = SETTINGS[model_name], float("nan")
    chosen = given.stages or settings["stages"][labels]
    for number, (epochs, alpha) in enumerate(chosen):
        last = number == len(chosen) - 1
        config = FitConfig(
            epochs=epochs,
            batch_size=settings["batch_size"],
            optimizer=f"adam:lr={settings['lr']}",
            schedule="cosine" if last else "constant",
            objective=f"m2:alpha={alpha}",
            device="cpu",
        )
        result = fit(model, train, config=config, seed=derive_seed(draw, number), progress=False)
        bound = result.history[-1]["elbo"]
    return bound


def with_labels(split: Split, labels: int, draw: int) -> Split:
    """The split with a number of classes given, balanced, and repeated in proportion."""
    assert split.labels is not None
    rows = balanced(split.labels.numpy(), labels, derive_seed(draw, _LABEL_STREAM))
    y = torch.full((len(split),), -1)
    y[rows] = split.labels[rows].to(torch.int64)
    return repeat_labelled(split.replace(y=y), SHARE)


def moments(vae: VAE, split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(z | x) for each datum, ``(datum, latent)``."""
    parts = []
    for start in range(0, len(split), _BLOCK):
        x, _ = split.batch(slice(start, start + _BLOCK))
        parts.append(vae.posterior_moments(x))
    return torch.cat([loc for loc, _ in parts]), torch.cat([scale for _, scale in parts])


def first_model(data: Dataset, folder: Path) -> VAE:
    """M1, fitted once to images without labels; kept in a run folder, and beside it what it took."""
    vae = VAE(VAEConfig(x_shape=data.x_shape, likelihood="bernoulli", **M1["model"]))
    config = FitConfig(device="cpu", **M1["fit"])
    resume, began, worked = (folder / "config.json").exists(), perf_counter(), process_time()
    fit(vae, data.train, config=config, seed=0, data=data, out=folder, resume=resume, progress=False)
    if not (cost := folder.with_suffix(".json")).exists():
        took = {"seconds": perf_counter() - began, "cpu_seconds": process_time() - worked}
        common.write_json(cost, took)
    return vae


def latents_of(vae: VAE, data: Dataset, labels: int, draw: int) -> tuple[Split, Split, Split]:
    """Latents of M1 in place of images: draws of q(z | x) for training, means for validation and test."""
    loc, scale = moments(vae, data.train)
    active = loc.var(0) > _ACTIVE
    train = with_labels(Split(loc[:, active], labels=data.train.labels), labels, draw)
    with seeded(derive_seed(draw, _NOISE_STREAM)):
        noise = torch.randn((len(train), *train.x_shape))
    train = train.replace(values=train.stored(slice(None)) + scale[train.ids][:, active] * noise)
    held = [Split(moments(vae, part)[0][:, active], labels=part.labels) for part in (data.validation, data.test)]
    return train, held[0], held[1]


def scored(made: Classification, which: str) -> dict[str, Any]:
    """Scores of the guide's or of the model's probabilities."""
    assert made.labels is not None
    return class_scores(made.of(which), made.labels, log_probabilities=made.log_of(which)).summary()


def carry_out(name: str, labels: int, draw: int, given: argparse.Namespace) -> dict[str, Any]:
    """One fit, and its error on test and validation images."""
    root = None if given.data_root is None else str(given.data_root)
    # q(y | x) is evaluated at the intensities; the binary images of the fit are draws of them.
    grey = DataConfig(source="mnist", root=root).load()
    binary = DataConfig(source="mnist", root=root, binarize="dynamic").load()
    settings = SETTINGS[name]
    first: dict[str, float] = {}
    if name == "m1m2":
        vae = first_model(binary, given.runs / "m1")
        cost = common.read_json(given.runs / "m1.json") or {}
        first = {f"m1_{key}": value for key, value in cost.items()}
        train, validation, test = latents_of(vae, grey, labels, draw)
        binary_test = test
    else:
        train = with_labels(binary.train, labels, draw)
        validation, test, binary_test = grey.validation, grey.test, binary.test
    began, worked = perf_counter(), process_time()
    model = VAE(VAEConfig(x_shape=train.x_shape, **settings["model"]), seed=draw)
    elbo = stages(model, train, name, labels, draw, given)
    fitted = {"seconds": perf_counter() - began, "cpu_seconds": process_time() - worked}
    found = {
        "model": name,
        "labels": labels,
        "draw": draw,
        "elbo": elbo,
        **first,
        **fitted,
        "validation": scored(classify(model, validation, num_draws=0), "guide"),
    }
    if given.tune:
        return found
    found["test"] = scored(classify(model, test, num_draws=0), "guide")
    if given.draws_of_z:
        some = binary_test.take(slice(given.test_images))
        made = classify(model, some, num_draws=given.draws_of_z)
        found["model_test"] = scored(made, "model")
        found["guide_same_test"] = scored(made, "guide")
    return found


def rows_of(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table: for each model and number of labels, mean test error over draws of the labels."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[run["model"], run["labels"]].append(run)
    rows = []
    for (name, labels), of in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1])):
        errors = [100 * run["test"]["error"] for run in of]
        spread = statistics.stdev(errors) / sqrt(len(errors)) if len(errors) > 1 else None
        image = sqrt(sum((100 * run["test"]["error_se"]) ** 2 for run in of)) / len(of)
        published = PUBLISHED[name][labels]
        rows.append(
            [
                NAMES[name],
                f"{labels:,}",
                f"{statistics.mean(errors):.2f}" + ("" if spread is None else f" ± {spread:.2f}"),
                ", ".join(f"{error:.2f}" for error in errors),
                f"{image:.2f}",
                f"{published:.2f}",
                f"{statistics.mean(100 * run['test']['ece'] for run in of):.1f}",
                common.duration(statistics.mean(run["cpu_seconds"] for run in of)),
            ]
        )
    return rows


def report(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    columns = (
        "model", "labels", "test error, % (mean over draws of labels ± its se)", "each draw", "se of the test images",
        "paper", "calibration error, %", "CPU time of a fit",
    )  # fmt: skip
    shared = max((run["m1_cpu_seconds"] for run in result["runs"] if "m1_cpu_seconds" in run), default=None)
    first = "" if shared is None else f" M1 was fitted once for all ({common.duration(shared)} of CPU time)."
    total = sum(run["cpu_seconds"] for run in result["runs"]) + (shared or 0)
    note = (
        "Labels are balanced and drawn with seeds 0, 1, 2; 54,000 training images, 10,000 test images; the error is "
        f"that of the guide's q(y | x).{first} One thread; {common.duration(total)} of CPU time in all. "
        f"Differences from the paper: labelled data are repeated until they are {SHARE:.0%} of an epoch; y enters the "
        "second layer of q(z | x, y); the classifier has 500 units in one layer; z has 10 dimensions in the M2 of "
        "M1+M2. On images M2 starts from a classifier fitted to the labels alone, which unlabelled images improve "
        "slowly; these fits end long before the improvement does."
    )
    return f"{common.markdown_table(columns, rows_of(result['runs']), left=1)}\n\n{note}\n\n" + common.machine_line(
        result["machine"]
    )


def stage(text: str) -> tuple[int, float]:
    """``12:5`` as 12 epochs with alpha 5."""
    epochs, _, alpha = text.partition(":")
    return int(epochs), float(alpha)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--labels", nargs="+", type=int, choices=[100, 1000], default=[100, 1000])
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2], help="seeds of the draws of labels")
    parser.add_argument("--stages", nargs="+", type=stage, help="EPOCHS:ALPHA in place of the settings'")
    parser.add_argument("--tune", action="store_true", help="validation error alone; nothing is written")
    parser.add_argument("--draws-of-z", type=int, default=0, help="draws for the model's own p(y | x); 0 leaves it out")
    parser.add_argument(
        "--test-images", type=int, help="number of test images, the first, for the model's own p(y | x)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs") / "labels", help="folder of M1")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=common.HERE / "results" / "labels.json")
    parser.add_argument("--table", action="store_true", help="print the table of the stored results only")
    return parser.parse_args(argv)


def main() -> None:
    """Fit the runs that are missing; write after every fit."""
    given = arguments()
    torch.set_num_threads(1)
    result = common.read_json(given.out) or {"benchmark": "labels", "runs": []}
    if given.table:
        print(report(result))
        return
    result |= {"settings": {"m1": M1, **SETTINGS, "share": SHARE}, "machine": common.machine()}
    result["revision"] = common.revision()
    done = {(run["model"], run["labels"], run["draw"]) for run in result["runs"]}
    for name in given.models:
        for labels in given.labels:
            for draw in given.draws:
                if not given.tune and (name, labels, draw) in done:
                    continue
                found = carry_out(name, labels, draw, given)
                shown = found["validation" if given.tune else "test"]
                print(
                    f"{NAMES[name]}, {labels} labels, draw {draw}: error {100 * shown['error']:.2f} ± "
                    f"{100 * shown['error_se']:.2f} %, {common.duration(found['cpu_seconds'])}",
                    flush=True,
                )
                if not given.tune:
                    # Other processes may have written to the same file meanwhile.
                    latest = common.read_json(given.out) or result
                    result["runs"] = [*latest["runs"], found]
                    common.write_json(given.out, result)
    if not given.tune:
        print(f"\n{report(result)}", file=sys.stdout)


if __name__ == "__main__":
    main()
