"""``python -m benchmarks.sparse``: time and memory of sparse rows, and predictions by likelihood of counts.

Documents of a known process: topics are Dirichlet(0.05) over words, a document's shares of topics Dirichlet(0.2), its
length is negative binomial, and its words are drawn from the mixture. A model receives a test document and predicts a
second one with the same shares.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from analysis.results.estimate import plus_minus
from benchmarks import common
from benchmarks.sparse.documents import NUM_TOPICS, WORDS_EACH, documents
from benchmarks.sparse.models import LATENT_DIM, MODELS
from benchmarks.sparse.step_times import TIMED_STEPS, in_process

type Array = np.ndarray[Any, Any]


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
            "document with the same shares of topics, given the first, ± over test documents; the truth is the process "
            f"itself. VAE: {LATENT_DIM} latents, 128 hidden units, {settings['epochs']} epochs, batch 100, "
            f"{settings['num_draws']} draws of log p(x). LDA: scikit-learn, {settings['epochs']} iterations, the true "
            "number of topics and the true concentrations. log p(x) of `multinomial` is given the total, and "
            "not comparable with the others."
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
            f"(least..greatest) of {TIMED_STEPS} steps. The peak is that of a separate process, libraries "
            "included; the dense data were made from the sparse ones."
        )
    parts.append(
        f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}."
    )
    return "\n\n".join(parts)


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """Place of a row in either table."""
    if "model" in row:
        return (list(MODELS).index(row["model"]),)
    return (row["rows"], row["columns"], row["dense"])


def arguments() -> argparse.Namespace:
    """The command line."""
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
    parser.add_argument("--most-dense", type=float, default=2.0, help="largest dense data that are measured, GiB")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write after every row."""
    given = arguments()
    names = ("documents", "tests", "words", "epochs", "num_draws", "seed")
    settings = {name: getattr(given, name) for name in names}
    file = given.out / "results" / "sparse.json"
    earlier = common.read_json(file) or {}
    kept = earlier if earlier.get("settings") == settings else {}  # rows that are not measured again
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
