"""``python -m benchmarks.inpainting``: MNIST with a quarter of the pixels hidden, and with the lower half hidden.

Binarised images. ``quarter``: a quarter of the pixels of every image, training and test, hidden completely at random.
``lower``: the lower half hidden, of every test image and of a random half of the training images (a model that
never observed a lower half cannot predict it). Evaluated on the hidden pixels of test images, compared with the means
of the pixels.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from analysis import imputation_quality
from analysis.plotting import save
from analysis.tasks.imputation.plot import plot_imputations
from benchmarks import common
from vae_pyro import VAE, DataConfig, FitConfig, VAEConfig, fit
from vae_pyro.applications.imputation import impute
from vae_pyro.core.isolation import derive_seed

type Pattern = Literal["quarter", "lower"]

PATTERNS: tuple[Pattern, ...] = ("quarter", "lower")
_TRAIN_STREAM, _TEST_STREAM = 1, 2


def masked(pattern: Pattern, shape: tuple[int, ...], seed: int, *, training: bool) -> Tensor:
    """A mask, true where observed, ``(datum, ..., height, width)``."""
    random = np.random.default_rng(derive_seed(seed, _TRAIN_STREAM if training else _TEST_STREAM))
    if pattern == "quarter":
        return torch.from_numpy(random.random(shape) >= 0.25)
    seen = np.ones(shape, dtype=bool)
    hidden = random.random(shape[0]) < 0.5 if training else np.ones(shape[0], dtype=bool)
    seen[hidden, ..., shape[-2] // 2 :, :] = False
    return torch.from_numpy(seen)


def measure(pattern: Pattern, given: argparse.Namespace) -> dict[str, Any]:
    """Fit, impute and draw one pattern."""
    data = DataConfig(source="mnist", root=given.data_root, binarize="static", validation_fraction=0.0).load()
    train, test = data.train.take(slice(given.train)), data.test.take(slice(given.test))
    train = train.replace(mask=masked(pattern, (len(train), *train.x_shape), given.seed, training=True))
    test = test.replace(mask=masked(pattern, (len(test), *test.x_shape), given.seed, training=False))
    assert train.mask is not None
    assert test.mask is not None
    config = VAEConfig(x_shape=data.x_shape, latent_dim=20, encoder={"name": "mlp", "hidden": [400]}, encode_mask=True)
    began = process_time()
    vae = VAE(config, seed=given.seed)
    how = FitConfig(epochs=given.epochs, optimizer={"name": "adam", "lr": 1e-3}, device=given.device)
    fit(vae, train, config=how, seed=given.seed, progress=False)
    fitted = process_time()
    made = impute(vae, test, num_draws=given.draws, num_imputations=2, level=None, seed=given.seed)
    x = test.batch(slice(None))[0].numpy()
    ours = imputation_quality(made, x)
    seen = train.mask.numpy()
    values = np.where(seen, train.batch(slice(None))[0].numpy(), 0.0)
    share = (values.sum(0) + 1) / (seen.sum(0) + 2)
    mean = np.where(made.mask, x, share)
    means = imputation_quality(replace(made, mean=mean, mean_se=0 * mean, sd=np.sqrt(mean * (1 - mean))), x)
    save(
        plot_imputations(x, made.mask, made.mean, made.imputations, title=f"MNIST, {pattern} hidden: test images"),
        given.out / "results" / f"inpainting-{pattern}.png",
    )
    return {
        "pattern": pattern,
        "vae_pyro": ours.summary(),
        "mean": means.summary(),
        "effective_sample_size": float(np.nanmedian(made.effective_sample_size)),
        "fit_seconds": fitted - began,
        "impute_seconds": process_time() - fitted,
    }


def report(result: dict[str, Any]) -> str:
    """A result as a Markdown table with notes."""
    lines = [
        [
            f"{row['pattern']}, {name}",
            f"{row[method]['brier']:.4f} ± {row[method]['brier_se']:.4f}",
            f"{row[method]['log_score']:.4f} ± {row[method]['log_score_se']:.4f}",
            f"{row[method]['brier_excess']:+.4f} ± {row[method]['brier_excess_se']:.4f}",
        ]
        for row in result["rows"]
        for method, name in (("vae_pyro", "**vae_pyro**"), ("mean", "means of pixels"))
    ]
    settings = result["settings"]
    sizes = ", ".join(f"{row['pattern']} {row['effective_sample_size']:.0f}" for row in result["rows"])
    foot = (
        f"{settings['train']:,} training images, {settings['epochs']} epochs of the ELBO (784-400-20); "
        f"{settings['test']:,} test images, {settings['draws']:,} draws each, whose effective sample sizes are {sizes} "
        "(median); errors are over test images. Excess: the Brier score minus its expectation under calibrated "
        "probabilities."
    )
    machine = f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}."
    columns = ["hidden", "Brier score (MSE) of a hidden pixel", "log score, nats", "excess"]
    return "\n\n".join([common.markdown_table(columns, lines), foot, machine])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inpainting", description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=10_000, help="number of training images, the first")
    parser.add_argument("--test", type=int, default=300, help="number of test images, the first")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1000, help="of z for each image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-root", help="folder in which torchvision keeps MNIST; default: VAE_PYRO_DATA")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Fit, impute, draw, print and write, one pattern after the other."""
    given = arguments()
    (given.out / "results").mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(given, name) for name in ("train", "test", "epochs", "draws", "seed")}
    result: dict[str, Any] = {
        "benchmark": "inpainting",
        "settings": settings,
        "machine": common.machine(given.device),
        "revision": common.revision(),
        "rows": [],
    }
    for pattern in PATTERNS:
        result["rows"].append(measure(pattern, given))
        print(result["rows"][-1], flush=True)
        common.write_json(given.out / "results" / "inpainting.json", result)
    common.replace_block(given.out / "README.md", "inpainting", report(result))
    print(f"\n{report(result)}")


if __name__ == "__main__":
    main()
