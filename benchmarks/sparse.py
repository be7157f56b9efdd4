"""``python -m benchmarks.sparse``: counts that are mostly zeros. What sparse rows save; which likelihood predicts best.

Documents of a known process: topics are Dirichlet(0.05) over words, a document's shares of topics Dirichlet(0.2), its
length is negative binomial, and its words are drawn from the mixture. 20 Newsgroups would be the usual data, and is not
part of any installed package. A test document is seen once and predicted in a second half of the same shares.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import sparse

from analysis.density.elpd import elpd_of
from analysis.results.estimate import plus_minus
from benchmarks import common
from benchmarks.memory import peak
from vae_pyro import VAE, FitConfig, Split, VAEConfig, fit
from vae_pyro.core.isolation import isolated
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.sparse import SparseRows, SparseSplit
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI

type Array = np.ndarray[Any, Any]

LIKELIHOODS = (
    "poisson",
    "negative_binomial",
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
    "multinomial",
)
NUM_TOPICS, WORDS_EACH, LENGTH_SHAPE = 10, 60.0, 4.0
_LATENT_DIM, _DRAWS_OF_SHARES = 10, 100
# Steps that are timed, after as many that are not.
_TIMED = 20


@dataclass(frozen=True)
class Documents:
    """Documents of the process.

    Attributes:
        train: counts ``(document, word)``, sparse.
        seen: of the test documents, likewise; what a model is shown.
        told: second documents with the shares of topics of ``seen``; what it has to predict.
        shares: true probabilities of the words of each test document, ``(document, word)``.
    """

    train: Any
    seen: Any
    told: Any
    shares: Array


def documents(size: int, tests: int, words: int, seed: int) -> Documents:
    """Draw them."""
    random = np.random.default_rng(seed)
    topics = random.dirichlet(np.full(words, 0.05), NUM_TOPICS)

    def draw(shares: Array) -> Any:
        length = random.negative_binomial(LENGTH_SHAPE, LENGTH_SHAPE / (LENGTH_SHAPE + WORDS_EACH), len(shares))
        return sparse.csr_array(random.multinomial(length, shares / shares.sum(1, keepdims=True)).astype(np.float32))

    of_train, of_test = (random.dirichlet(np.full(NUM_TOPICS, 0.2), count) @ topics for count in (size, tests))
    return Documents(draw(of_train), draw(of_test), draw(of_test), of_test)


@dataclass(frozen=True)
class Perplexity:
    """exp of minus the mean log probability of a word, with its standard error over test documents."""

    value: float
    se: float

    @classmethod
    def of(cls, told: Any, shares: Array) -> "Perplexity":
        """Of documents whose words were predicted with these probabilities, ``(document, word)``."""
        told = told.toarray()
        log_p = (told * np.log(np.maximum(shares, 1e-300))).sum(1)
        count = told.sum(1)
        mean = log_p.sum() / count.sum()
        error = np.sqrt(((log_p - mean * count) ** 2).sum()) / count.sum()  # of a ratio, by the delta method
        return cls(float(np.exp(-mean)), float(np.exp(-mean) * error))


def predicted(vae: VAE, split: Split, seed: int) -> Array:
    """E over q(z | x) of each word's share of the expected counts, ``(document, word)``."""
    total: Any = 0.0
    x, _ = split.batch(slice(None))
    with torch.no_grad(), isolated(seed):
        posterior = vae.encode(x)
        for _ in range(_DRAWS_OF_SHARES):
            rate = vae.expectation(posterior.sample())
            total = total + rate / rate.sum(1, keepdim=True)
    return np.asarray(total.double().numpy()) / _DRAWS_OF_SHARES


def by_vae(likelihood: str, data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """Fit one likelihood and measure it."""
    split, test = SparseSplit(SparseRows.of(data.train)), SparseSplit(SparseRows.of(data.seen))
    config = VAEConfig(x_shape=split.x_shape, latent_dim=_LATENT_DIM, likelihood=likelihood, encoder="mlp:hidden=[128]")
    began = perf_counter()
    result = fit(
        VAE(config, seed=given.seed),
        split,
        config=FitConfig(
            epochs=given.epochs,
            batch_size=100,
            optimizer="adam:lr=0.003",
            schedule="cosine",
            kl_warmup=given.epochs / 4,
            device="cpu",
        ),
        seed=given.seed,
    )
    seconds = perf_counter() - began
    found = elpd_of(result.vae, test, num_draws=given.num_draws, seed=given.seed)
    return {
        "model": likelihood,
        "perplexity": vars(Perplexity.of(data.told, predicted(result.vae, test, given.seed))),
        "log_px": found.summary(),
        "given_total": result.vae.model.likelihood.given_total,
        "seconds": seconds,
    }


def by_lda(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """scikit-learn's latent Dirichlet allocation with the true number of topics and the true concentrations."""
    from sklearn.decomposition import LatentDirichletAllocation

    began = perf_counter()
    lda = LatentDirichletAllocation(
        NUM_TOPICS, doc_topic_prior=0.2, topic_word_prior=0.05, max_iter=given.epochs, random_state=given.seed
    ).fit(data.train)
    seconds = perf_counter() - began
    words = lda.components_ / lda.components_.sum(1, keepdims=True)
    return _row("LDA", data, lda.transform(data.seen) @ words, seconds)


def by_words(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """The share of each word in all training documents, for every document."""
    count = np.asarray(data.train.sum(0)).ravel() + 0.05
    return _row("one share for all", data, np.tile(count / count.sum(), (len(data.shares), 1)))


def by_truth(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """The shares that made the test documents, which no method is told."""
    return _row("truth", data, data.shares / data.shares.sum(1, keepdims=True))


def _row(name: str, data: Documents, shares: Array, seconds: float | None = None) -> dict[str, Any]:
    return {"model": name, "perplexity": vars(Perplexity.of(data.told, shares)), "log_px": None, "seconds": seconds}


# --- time and memory ----------------------------------------------------------------------------------------------


def step_times(rows: int, columns: int, each: int, dense: bool) -> dict[str, Any]:
    """Milliseconds of a step and of making its batch, and the peak of this process with everything it loaded."""
    random = np.random.default_rng(0)
    start = np.arange(0, (rows + 1) * each, each)
    entries = (random.integers(1, 4, rows * each).astype(np.float32), random.integers(columns, size=rows * each), start)
    split: Split = SparseSplit(SparseRows.of(sparse.csr_array(entries, shape=(rows, columns))))
    del entries
    if dense:
        split = Split(split.values[:])
    vae = VAE(VAEConfig(x_shape=(columns,), latent_dim=10, likelihood="poisson", encoder="mlp:hidden=[128]"))
    objective = OBJECTIVES.build(OBJECTIVES.resolve("elbo"))
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), objective, prepare=split.observe)
    stepped: list[float] = []
    made: list[float] = []
    epoch = chain.from_iterable(split.epoch(100, number, BitStream(number)) for number in count())
    for _ in range(2 * _TIMED):
        began = perf_counter()
        raw = next(epoch)
        batched = perf_counter()
        float(svi.step_tensor(*raw))
        made.append(1e3 * (batched - began))
        stepped.append(1e3 * (perf_counter() - began))
    return {
        "rows": rows,
        "columns": columns,
        "each": each,
        "dense": dense,
        "step": vars(common.Spread.of(stepped[_TIMED:])),
        "batch": vars(common.Spread.of(made[_TIMED:])),
        "peak": peak(),
    }


def in_process(rows: int, columns: int, each: int, dense: bool) -> dict[str, Any]:
    """`step_times` in a process of its own, whose peak is its own."""
    asked = json.dumps({"rows": rows, "columns": columns, "each": each, "dense": dense})
    command = [sys.executable, "-m", "benchmarks.sparse", "--step", asked]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return measured


# --- report -------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """A result as Markdown."""
    parts = []
    settings = result["settings"]
    if result["models"]:
        lines = []
        for row in result["models"]:
            log_px = row["log_px"]
            lines.append(
                [
                    row["model"],
                    plus_minus(row["perplexity"]["value"], row["perplexity"]["se"]),
                    "" if log_px is None else plus_minus(log_px["log_px"], log_px["elpd_se"] / log_px["n"])
                    + (" given its total" if row["given_total"] else ""),
                    "" if row["seconds"] is None else common.duration(row["seconds"]),
                ]
            )  # fmt: skip
        parts.append(common.markdown_table(["model", "perplexity", "log p(x), nats a document", "training"], lines))
        parts.append(
            f"{settings['documents']:,} training and {settings['tests']:,} test documents of {settings['words']:,} "
            f"words, {NUM_TOPICS} topics, {WORDS_EACH:g} words a document on average. Perplexity is that of a second "
            "document with the same shares of topics, given the first, ± over test documents; the truth is what made "
            f"them. VAE: {_LATENT_DIM} latents, 128 hidden units, {settings['epochs']} epochs, batch 100, "
            f"{settings['num_draws']} draws of log p(x). LDA: scikit-learn, {settings['epochs']} iterations, the true "
            "number of topics and the true concentrations. log p(x) of `multinomial` says nothing of the total, and "
            "stands beside no other."
        )
    if result["steps"]:
        lines = [
            [
                f"{row['rows']:,} x {row['columns']:,}",
                "dense" if row["dense"] else "sparse",
                common.Spread(**row["step"]).text(1),
                common.Spread(**row["batch"]).text(2),
                f"{row['peak'] / 2**30:.2f}",
                f"{4 * row['rows'] * row['columns'] / 2**30:.2f}",
            ]
            for row in result["steps"]
        ]
        columns = ["data", "kept", "step, ms", "of which the batch, ms", "peak, GiB", "dense float32, GiB"]
        parts.append(common.markdown_table(columns, lines, left=2))
        parts.append(
            f"{result['steps'][0]['each']} entries a row, Poisson, 128 hidden units, batch 100, compiled; median "
            f"(least..greatest) of {_TIMED} steps. The peak is that of a process that did nothing else, libraries "
            "included; the dense data were made from the sparse ones."
        )
    parts.append(
        f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}."
    )
    return "\n\n".join(parts)


MODELS: dict[str, Callable[[Documents, argparse.Namespace], dict[str, Any]]] = {
    "one share for all": by_words,
    "LDA": by_lda,
    **{name: partial(by_vae, name) for name in LIKELIHOODS},
    "truth": by_truth,
}


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """Where a row of either table stands."""
    if "model" in row:
        return (list(MODELS).index(row["model"]),)
    return (row["rows"], row["columns"], row["dense"])


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=4000, help="training documents")
    parser.add_argument("--tests", type=int, default=500, help="test documents")
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--num-draws", type=int, default=200, help="draws of log p(x)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--models", nargs="*", choices=MODELS, default=list(MODELS), metavar="NAME", help=", ".join(MODELS)
    )
    parser.add_argument("--sizes", nargs="*", default=["20000x10000", "200000x20000"], help="rows x columns, timed")
    parser.add_argument("--most-dense", type=float, default=2.0, help="largest dense data that are tried, GiB")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write after every row."""
    given = arguments()
    if given.step is not None:
        print(json.dumps(step_times(**json.loads(given.step))))
        return
    names = ("documents", "tests", "words", "epochs", "num_draws", "seed")
    settings = {name: getattr(given, name) for name in names}
    file = given.out / "results" / "sparse.json"
    earlier = common.read_json(file) or {}
    kept = earlier if earlier.get("settings") == settings else {}  # what is not measured again stays
    result: dict[str, Any] = {
        "benchmark": "sparse",
        "settings": settings,
        "machine": common.machine("cpu"),
        "revision": common.revision(),
        "models": kept.get("models", []),
        "steps": kept.get("steps", []),
    }

    def add(to: str, row: dict[str, Any]) -> None:
        old = [one for one in result[to] if _place(one) != _place(row)]
        result[to] = sorted([*old, row], key=_place)
        common.write_json(file, result)
        common.replace_block(given.out / "README.md", "sparse", report(result))

    if given.models:
        data = documents(given.documents, given.tests, given.words, given.seed)
        for name in given.models:
            add("models", MODELS[name](data, given))
    for size in given.sizes:
        rows, columns = map(int, size.split("x"))
        for dense in (False, True):
            if not dense or 4 * rows * columns <= given.most_dense * 2**30:
                add("steps", in_process(rows, columns, 20, dense))
    print(report(result))


if __name__ == "__main__":
    main()
