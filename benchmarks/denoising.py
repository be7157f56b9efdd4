"""``python -m benchmarks.denoising``: denoising of images, compared with scikit-image's classical filters.

Each VAE is fitted on noisy images alone. Each filter has the options that are best on clean validation images, which
favours the filters; Poisson noise is also filtered after Anscombe's transform, where that is better.
"""

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis import DenoisingCheck, check_denoising
from analysis.plotting.style import save
from analysis.results.estimate import plus_minus
from analysis.tasks.denoising.plot import plot_denoised
from benchmarks import common
from vae_pyro import VAE, DataConfig, Dataset, FitConfig, Split, VAEConfig, fit
from vae_pyro.applications.denoising import noise_of
from vae_pyro.core.isolation import derive_seed
from vae_pyro.likelihoods.noise import add_noise

_VALIDATION_PAIRS = 60
_PICTURES = 10
# Full intensity of the clean images: the digits have 17 levels, and MNIST's 256 are rounded to as many.
TOP = 16
LIKELIHOOD = f"discretized_logistic:levels={TOP + 1},scale=predicted"
# A quarter of full intensity; a fifth of the pixels; 8 counts at full intensity.
NOISES = ("gaussian:scale=4", "salt_and_pepper:probability=0.2", "poisson:peak=0.5")
DATA = ("digits", "mnist")
HIDDEN = {"digits": [256], "mnist": [500]}
LATENTS = {"digits": 16, "mnist": 32}
EPOCHS = {"digits": 150, "mnist": 40}


def clean_images(split: Split) -> Tensor:
    """Images in levels 0 to `TOP`, ``(datum, channel, height, width)``."""
    x, _ = split.batch(slice(None))
    return (x * TOP).round()


def carry_out(noise: str, name: str, data: Dataset, given: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """Fit on noisy training images, evaluate on noisy test images; the results, and a picture."""
    train, validation = (clean_images(split) for split in (data.train, data.validation))
    test = clean_images(data.test.take(slice(given.test_images)))
    if given.train_images is not None:
        train = train[: given.train_images]
    noisy = [
        add_noise(x, noise, seed=derive_seed(given.seed, number), low=0, high=TOP)
        for number, x in enumerate((train, validation, test))
    ]
    config = VAEConfig(
        x_shape=data.x_shape,
        latent_dim=LATENTS[name],
        likelihood=LIKELIHOOD,
        noise=noise,
        encoder={"name": "mlp", "hidden": HIDDEN[name]},
    )
    vae = VAE(config, seed=given.seed)
    how = FitConfig(epochs=given.epochs or EPOCHS[name], batch_size=64 if name == "digits" else 128, patience=20)
    began = perf_counter()
    result = fit(vae, noisy[0], validation=noisy[1], config=how, seed=given.seed, progress=False)
    fitted = perf_counter()
    pairs = (noisy[1][:_VALIDATION_PAIRS].numpy(), validation[:_VALIDATION_PAIRS].numpy())
    check = check_denoising(
        vae, noisy[2], test, data_range=TOP, validation=pairs, num_draws=given.num_draws, seed=given.seed
    )
    scored = perf_counter()
    print(f"\n{noise} on {LIKELIHOOD}, {result.epochs} epochs\n{check}", flush=True)
    outcome = {
        "noise": noise,
        "likelihood": LIKELIHOOD,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "fit_seconds": fitted - began,
        "score_seconds": scored - fitted,
        "train_images": len(train),
        "test_images": len(test),
        "validation_pairs": len(pairs[0]),
        "rows": [
            {"method": method, "psnr": score.value, "psnr_se": score.error, "vae_minus": more, "vae_minus_se": error}
            for method, score, more, error in check.rows()
        ],
        **check.summary(),
        **check.denoised.summary(),
        "verdicts": {verdict.name: verdict.outcome for verdict in check.verdicts},
    }
    return outcome, _picture(vae, noisy[2], test, check)


def _picture(vae: VAE, noisy: Tensor, clean: Tensor, check: DenoisingCheck) -> Any:
    rows = slice(_PICTURES)
    seen = noise_of(vae).rescaled(noisy[rows].double()).numpy()
    best = check.best_filter
    others = {} if best is None else {best[0].name: best[0](seen)}
    found = check.denoised
    return plot_denoised(seen, found.mean[rows], found.sd[rows], clean=clean[rows].numpy(), others=others)


def report(result: dict[str, Any]) -> str:
    """The table with notes, in Markdown."""
    rows = []
    for case in result["cases"]:
        for row in case["rows"]:
            own = row["method"].startswith("VAE")
            rows.append(
                [
                    case["noise"],
                    f"**{row['method']}**" if own else row["method"],
                    plus_minus(row["psnr"], row["psnr_se"]),
                    "" if own else plus_minus(row["vae_minus"], row["vae_minus_se"]),
                    plus_minus(case["pit_coverage"], case["pit_coverage_se"]) if own else "",
                    plus_minus(case["spread"], case["spread_se"]) if own else "",
                ]
            )
    columns = ["noise", "method", "PSNR, dB", "VAE minus it, dB", "coverage of 90 %", "error / posterior sd"]
    first = result["cases"][0]
    seconds = ", ".join(
        f"{case['noise'].partition(':')[0]} {common.duration(case['fit_seconds'] + case['score_seconds'])}"
        for case in result["cases"]
    )
    notes = (
        f"{result['data']}: fitted on {first['train_images']:,} noisy images alone, evaluated on "
        f"{first['test_images']:,} held-out ones. PSNR of the pooled mean squared error at full intensity; errors are "
        "those of another sample of test images, and of differences on the same images. Each filter has the options "
        f"that are best on {first['validation_pairs']} pairs of noisy and clean validation images, which the VAE never "
        "sees. Coverage with ties broken at random; an error of 1 posterior sd is calibrated. Filters state no "
        f"uncertainty. Clean signal: {first['likelihood']}; full intensity is {TOP}. Time: {seconds}."
    )
    return f"{common.markdown_table(columns, rows, left=2)}\n\n{notes}\n\n{common.machine_line(result['machine'])}"


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--root", help="folder of MNIST, or VAE_PYRO_DATA")
    parser.add_argument("--only", nargs="+", help="noises, by their first word")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--num-draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder that gets results/ and, between its markers, README.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the cases, print the table, and write it where ``--out`` is given."""
    given = parsed(arguments)
    torch.set_num_threads(1)
    data = DataConfig(source=given.data, root=given.root).load()
    name = f"denoising-{given.data}"
    result: dict[str, Any] = {
        "data": given.data,
        "settings": {key: value for key, value in vars(given).items() if key not in ("out", "root")},
        "machine": common.machine(),
        "revision": common.revision(),
        "cases": [],
    }
    for noise in NOISES:
        word = noise.partition(":")[0]
        if given.only and word not in given.only:
            continue
        outcome, picture = carry_out(noise, given.data, data, given)
        result["cases"].append(outcome)
        if given.out is not None:
            folder = given.out / "results"
            folder.mkdir(parents=True, exist_ok=True)
            save(picture, folder / f"{name}-{word}.png")
            common.write_json(folder / f"{name}.json", _plain(result))
            common.replace_block(given.out / "README.md", name, report(result))
    print(f"\n{report(result)}")
    if given.out is None:
        print("\nTrial run: nothing was written.")


def _plain(value: Any) -> Any:
    """JSON-able: NumPy's numbers as Python's, values that are not finite as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(value)
    return value


if __name__ == "__main__":
    main()
