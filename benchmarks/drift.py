"""``python -m benchmarks.drift``: false alarms and power of the drift test, and what replay keeps of old data.

Three parts, each alone with ``--only``: ``null`` repeats the test on held-out data of one distribution, ``power`` on
data that were changed in known ways, ``replay`` continues from digits 0 to 4 with digits 5 to 9. Inverted images, and
images with permuted pixels, represent data of another kind.
"""

import argparse
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from analysis.density.elpd import elpd_of
from analysis.density.result import ELPD
from analysis.monitoring.drift.testing import drift_test
from analysis.monitoring.drift.thresholds import STATISTICS
from benchmarks import common
from vae_pyro import VAE, Dataset, FitConfig, Split, VAEConfig, fit, load_data
from vae_pyro.core.isolation import derive_seed
from vae_pyro.training.rehearsal import rehearsal
from vae_pyro.training.warm_start import initialize_from

type Array = np.ndarray[Any, Any]
type Change = Callable[[Split, np.random.Generator], Split]

_SHARES = (0.3, 0.5, 0.7)


def fitted(data: Dataset, train: Split, epochs: int, *, seed: int = 0, start: VAE | None = None) -> VAE:
    """784-400-20 for MNIST, 64-64-8 for the small digits; from new weights, or from those of a fitted one."""
    large = data.x_shape[-1] > 8
    body = {"name": "mlp", "hidden": [400 if large else 64]}
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=20 if large else 8, encoder=body), seed=seed)
    if start is not None:
        initialize_from(vae, start)
    lr = "1e-3" if large else "3e-3"
    config = FitConfig(epochs=epochs, batch_size=128 if large else 64, optimizer=f"adam:lr={lr}", device="cpu")
    return fit(vae, train, config=config, seed=seed, progress=False).vae


def load(name: str) -> Dataset:
    """Binarised at every step; of the small digits six tenths are held out."""
    fraction = {} if name == "mnist" else {"test_fraction": 0.6}
    return load_data(name, binarize="dynamic", validation_fraction=0.0, **fraction)


def held_out(data: Dataset) -> Split:
    """Intensities of the test data, which are binarised by each repetition."""
    source = load_data(data.config.source, validation_fraction=0.0, test_fraction=data.config.test_fraction)
    return source.test.replace(draw="binarize", space=data.test.space)


def rate(hits: list[bool]) -> dict[str, Any]:
    """Share of repetitions that reject, with its standard error, which is never below that of half a repetition."""
    share, count = float(np.mean(hits)), len(hits)
    inner = min(max(share, 0.5 / count), 1 - 0.5 / count)
    return {"rate": share, "se": sqrt(inner * (1 - inner) / count), "repetitions": count}


def repeated(
    vae: VAE, pool: Split, given: argparse.Namespace, size: int, repetitions: int, change: Change | None = None,
    reference: Split | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Rejections at 5 % of repeated tests, each with its own rows, binarisation, draws and relabellings."""
    rejected: dict[str, list[bool]] = {name: [] for name in ("together", *STATISTICS)}
    began = perf_counter()
    for repetition in range(repetitions):
        random = np.random.default_rng(derive_seed(given.seed, repetition))
        rows = torch.from_numpy(random.permutation(len(pool))[: 2 * size])
        known, new = pool.take(rows[:size]), pool.take(rows[size:])
        if reference is not None:
            known = reference.take(torch.from_numpy(random.permutation(len(reference))[:size]))
        if change is not None:
            new = change(new, random)
        known, new = (x.fixed(derive_seed(given.seed, repetition, place)) for place, x in enumerate((known, new)))
        found = drift_test(
            vae, known, new, num_permutations=given.permutations, num_draws=given.draws,
            seed=derive_seed(given.seed, repetition, 2),
        )  # fmt: skip
        rejected["together"].append(found.drifted)
        for name, p in zip(STATISTICS, found.p_values, strict=True):
            rejected[name].append(bool(p <= found.alpha))
    return {"size": size, "seconds": perf_counter() - began, **{name: rate(hits) for name, hits in rejected.items()}}


def null(given: argparse.Namespace) -> dict[str, Any]:
    """False alarms at 5 %, and those of a test against training data, which is invalid."""
    rows = {}
    for name, size in (("digits", 200), ("mnist", 200)):
        data = load(name)
        vae = fitted(data, data.train, given.epochs if name == "mnist" else 60)
        pool = held_out(data)
        rows[f"{name}, held-out reference"] = repeated(vae, pool, given, size, given.repetitions)
        print(name, rows[f"{name}, held-out reference"], flush=True)
        if name == "digits":
            known = repeated(vae, pool, given, size, given.repetitions, reference=data.train)
            rows["digits, training data as reference (wrong)"] = known
    return rows


def rotated(degrees: float) -> Change:
    """Images turned about their centre, by linear interpolation."""

    def change(split: Split, random: np.random.Generator) -> Split:
        from scipy.ndimage import rotate

        x = split.stored(slice(None)).numpy().astype(np.float32)
        turned = rotate(x, degrees, axes=(-2, -1), reshape=False, order=1)
        return split.replace(values=torch.from_numpy(turned.clip(0, split.top)))

    return change


def brighter(factor: float) -> Change:
    """Intensities times a factor, cut at the full one."""

    def change(split: Split, random: np.random.Generator) -> Split:
        return split.replace(values=(split.stored(slice(None)).float() * factor).clamp(max=split.top))

    return change


def another_mix(share: float) -> Change:
    """A share of the data replaced by others of the sample that show a 1."""

    def change(split: Split, random: np.random.Generator) -> Split:
        assert split.labels is not None
        ones = np.flatnonzero(split.labels.numpy() == 1)
        if len(ones) == 0:
            return split
        rows = np.where(random.random(len(split)) < share, random.choice(ones, len(split)), np.arange(len(split)))
        return split.take(torch.from_numpy(rows))

    return change


def inverted(split: Split, random: np.random.Generator) -> Split:
    """Black for white."""
    assert split.top is not None
    return split.replace(values=split.top - split.stored(slice(None)).float())


def permuted(split: Split, random: np.random.Generator) -> Split:
    """Pixels in another order, the same for all data and repetitions."""
    values = split.stored(slice(None))
    order = torch.from_numpy(np.random.default_rng(0).permutation(values[0].numel()))
    return split.replace(values=values.flatten(1)[:, order].reshape(values.shape))


CHANGES: dict[str, Change] = {
    "rotated by 5 degrees": rotated(5),
    "rotated by 15 degrees": rotated(15),
    "rotated by 30 degrees": rotated(30),
    "rotated by 45 degrees": rotated(45),
    "intensity times 0.9": brighter(0.9),
    "intensity times 0.7": brighter(0.7),
    "a tenth replaced by ones": another_mix(0.1),
    "a fifth replaced by ones": another_mix(0.2),
    "inverted": inverted,
    "pixels permuted": permuted,
}


def power(given: argparse.Namespace) -> dict[str, Any]:
    """Power of the test at 5 % for each change, by size of the samples."""
    data = load("mnist")
    vae = fitted(data, data.train, given.epochs)
    pool = held_out(data)
    rows = {}
    for name, change in CHANGES.items():
        for size in given.sizes:
            rows[f"{name}, n = {size}"] = repeated(vae, pool, given, size, given.power_repetitions, change)
            print(name, rows[f"{name}, n = {size}"], flush=True)
    return rows


def replay(given: argparse.Namespace) -> dict[str, Any]:
    """Digits 0 to 4, then 5 to 9: elpd of both kinds of test images before, after, with replay, and fitted jointly."""
    data = load("mnist")
    test = data.split("test")
    tests = {name: some.take(slice(given.test_images)) for name, some in _halves(test).items()}
    train = _halves(data.train)

    def score(vae: VAE) -> dict[str, ELPD]:
        return {name: elpd_of(vae, x, num_draws=given.elpd_draws, seed=given.seed) for name, x in tests.items()}

    epochs, seed = given.epochs, given.seed
    old = fitted(data, train["old"], epochs, seed=seed)
    scores = {"before: fitted to 0-4": score(old)}
    plain = fitted(data, train["new"], epochs, seed=seed + 1, start=old)
    scores["after: 5-9 alone"] = score(plain)
    for share in _SHARES:
        mixed = rehearsal(old, train["new"], share=share, seed=derive_seed(seed, 1))
        scores[f"after: 5-9, replay {share:g}"] = score(fitted(data, mixed, epochs, seed=seed + 1, start=old))
        print(share, {k: v.elpd / len(v) for k, v in scores[f"after: 5-9, replay {share:g}"].items()}, flush=True)
    scores["together: 0-9 from new weights"] = score(fitted(data, data.train, 2 * epochs, seed=seed + 1))
    first, last = "after: 5-9 alone", "together: 0-9 from new weights"
    rows = {}
    for name, found in scores.items():
        rows[name] = {kind: _mean(x.pointwise) for kind, x in found.items()}
        rows[name]["old, less 5-9 alone"] = _mean(found["old"].pointwise - scores[first]["old"].pointwise)
        rows[name]["old, less together"] = _mean(found["old"].pointwise - scores[last]["old"].pointwise)
        rows[name]["new, less 5-9 alone"] = _mean(found["new"].pointwise - scores[first]["new"].pointwise)
    return rows


def _halves(split: Split) -> dict[str, Split]:
    assert split.labels is not None
    return {"old": split.take(split.labels < 5), "new": split.take(split.labels >= 5)}


def _mean(values: Array) -> dict[str, float]:
    return {"mean": float(values.mean()), "se": float(values.std(ddof=1) / sqrt(len(values)))}


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    parts = []
    if "replay" in results:
        columns = ["fit", "log p(x), 0-4", "log p(x), 5-9", "0-4, paired with 5-9 alone", "0-4, paired with together"]
        keys = ("old", "new", "old, less 5-9 alone", "old, less together")
        rows = [
            [name, *(f"{row[key]['mean']:.2f} ± {row[key]['se']:.2f}" for key in keys)]
            for name, row in results["replay"]["rows"].items()
        ]
        parts.append(common.markdown_table(columns, rows))
    for part, title in (("null", "false alarms at 5 %"), ("power", "change")):
        if part in results:
            names = ("together", *STATISTICS)
            rows = [
                [name, *(f"{row[key]['rate']:.1%} ± {row[key]['se']:.1%}" for key in names)]
                for name, row in results[part]["rows"].items()
            ]
            parts.append(common.markdown_table([title, *names], rows))
    return "\n\n".join(parts)


def main() -> None:
    """Measure the chosen parts, add them to earlier results, and print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=("null", "power", "replay"), action="append")
    parser.add_argument("--epochs", type=int, default=10, help="of each fit to MNIST")
    parser.add_argument("--repetitions", type=int, default=300, help="of the test without a change")
    parser.add_argument("--power-repetitions", type=int, default=50, help="of each change and size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200], help="data in each sample")
    parser.add_argument("--permutations", type=int, default=499)
    parser.add_argument("--draws", type=int, default=50, help="for each datum, in a test")
    parser.add_argument("--elpd-draws", type=int, default=200, help="for each datum, in an elpd")
    parser.add_argument("--test-images", type=int, default=1000, help="of each half, for an elpd")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.HERE / "results" / "drift.json")
    given = parser.parse_args()
    for name, part in {"replay": replay, "null": null, "power": power}.items():
        if given.only and name not in given.only:
            continue
        began = perf_counter()
        rows = part(given)
        settings = {key: value for key, value in vars(given).items() if key not in ("out", "only")}
        made = {"rows": rows, "settings": settings, "seconds": perf_counter() - began}
        made |= {"machine": common.machine(), "revision": common.revision()}
        common.write_json(given.out, {**(common.read_json(given.out) or {}), name: made})
        print(f"{name} took {common.duration(perf_counter() - began)}", flush=True)
    print(tables(common.read_json(given.out) or {}))


if __name__ == "__main__":
    main()
