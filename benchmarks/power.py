"""``python -m benchmarks.power``: which diagnostics see which wrong guides, and how often they reject exact ones.

Guides that are wrong in known ways stand beside models whose posterior is closed. Each repetition simulates data and
draws anew and takes the verdicts of the report: a verdict that is not ``pass`` sees the guide. What each guide loses is
log p(x) minus its ELBO, with log p(x) in closed form.
"""

import argparse
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from analysis import AnnealingConfig, calibrate, elpd_of, inference_gaps
from analysis.posterior.calibration.result import Calibration
from benchmarks import common
from benchmarks.exact.wrong_guides import Wrong, guides
from vae_pyro import evaluate
from vae_pyro.core.isolation import derive_seed

# Title of each column, by what `seen` calls it.
COLUMNS = {
    "ranks": "SBC ranks of z, log p(x, z)",
    "log_weight": "rank of log w",
    "guide_width": "width",
    "guide_bias": "bias",
    "joint_coverage": "coverage",
    "tarp": "TARP",
    "symmetric_kl": "symmetric KL",
    "pareto_k": "k-hat",
    "density": "other rows of log p(x)",
    "gaps": "inference gaps",
}
_LOSS_DATA, _LOSS_DRAWS = 5000, 40
# What has to be seen: loss of the ELBO in nats, and power of the best verdict.
LOSS, POWER = 0.02, 0.9


def rate(hits: list[bool]) -> dict[str, Any]:
    """Share of repetitions in which a diagnostic rejects, with its standard error, never below that of half of one."""
    share, count = float(np.mean(hits)), len(hits)
    inner = min(max(share, 0.5 / count), 1 - 0.5 / count)
    return {"rate": share, "se": sqrt(inner * (1 - inner) / count), "repetitions": count}


def ranks_of(found: Calibration) -> dict[str, bool]:
    """The row ``sbc`` in two parts: ranks of latents and joint densities, and that of log w."""
    p = dict(zip(found.names[:-2], found.p_values[:-2], strict=True))
    weight = p.pop("log_weight")
    return {"ranks": found.significant(min(p.values())), "log_weight": found.significant(weight)}


def seen(guide: Wrong, given: argparse.Namespace, seed: int) -> dict[str, bool]:
    """Which diagnostics reject a guide in one repetition."""
    found = calibrate(guide.pair, num_simulations=given.simulations, seed=seed)
    rejected = {verdict.name: verdict.outcome != "pass" for verdict in found.verdicts}
    rejected |= ranks_of(found)
    x = guide.exact.data(given.data, derive_seed(seed, 1))
    density = {v.name: v.outcome != "pass" for v in elpd_of(guide.pair, x, num_draws=500, seed=seed).verdicts}
    rejected["pareto_k"] = density.pop("pareto_k")
    rejected["density"] = any(density.values())
    return {name: rejected[name] for name in COLUMNS if name in rejected}


def gaps_seen(guide: Wrong, given: argparse.Namespace, seed: int) -> bool:
    """Whether a row of the inference gaps rejects a guide."""
    x = guide.exact.data(given.gap_data, derive_seed(seed, 2))
    found = inference_gaps(
        guide.pair, x, annealing=AnnealingConfig(num_temperatures=200), num_simulated=given.gap_data, seed=seed
    )
    return found.outcome != "pass"


def loss(guide: Wrong, seed: int) -> dict[str, float]:
    """log p(x) minus the ELBO on data of the model, nats per datum, with its standard error."""
    x = guide.exact.data(_LOSS_DATA, derive_seed(seed, 3))
    lost = guide.exact.log_evidence(x).numpy() - evaluate(guide.pair, x, num_draws=_LOSS_DRAWS, seed=seed).elbo
    return {"mean": float(lost.mean()), "se": float(lost.std(ddof=1) / sqrt(len(lost)))}


def row(guide: Wrong, given: argparse.Namespace) -> dict[str, Any]:
    """One guide: its loss, and the power of every diagnostic."""
    began = perf_counter()
    hits: dict[str, list[bool]] = {}
    for repetition in range(given.repetitions):
        for name, hit in seen(guide, given, derive_seed(given.seed, repetition)).items():
            hits.setdefault(name, []).append(hit)
    any_of = [any(each) for each in zip(*hits.values(), strict=True)]
    hits["gaps"] = [gaps_seen(guide, given, derive_seed(given.seed, number)) for number in range(given.gap_repetitions)]
    return {
        "guide": guide.name,
        "model": guide.exact.name,
        "loss": loss(guide, given.seed),
        "power": {name: rate(values) for name, values in hits.items() if values},
        "any but gaps": rate(any_of),
        "seconds": perf_counter() - began,
    }


def best(made: Mapping[str, Any]) -> float:
    """Power of the diagnostic that sees a guide most often."""
    return float(max(found["rate"] for found in made["power"].values()))


def unseen(rows: list[dict[str, Any]]) -> list[str]:
    """Guides that lose more than `LOSS` and that no diagnostic sees with a power above `POWER`."""
    return [made["guide"] for made in rows if made["loss"]["mean"] > LOSS and best(made) <= POWER]


def report(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings = result["settings"]

    def cell(found: dict[str, Any] | None) -> str:
        return "" if found is None else f"{found['rate']:.0%} ± {found['se']:.0%}"

    lines = [
        [
            f"{made['guide']}, {made['model']}" if made["guide"] == "exact" else made["guide"],
            f"{made['loss']['mean']:z.4f} ± {made['loss']['se']:.4f}",
            *(cell(made["power"].get(name)) for name in COLUMNS),
            cell(made["any but gaps"]),
        ]
        for made in result["rows"]
    ]
    missed = unseen(result["rows"])
    verdict = (
        f"Not seen by any of them with a power above {POWER:.0%}: {', '.join(missed)}."
        if missed
        else f"Every guide that loses more than {LOSS} nats is seen by a diagnostic with a power above {POWER:.0%}."
    )
    foot = (
        f"{settings['repetitions']} repetitions ({settings['gap_repetitions']} of the gaps, on {settings['gap_data']} "
        f"data) of {settings['simulations']} simulations and {settings['data']} held-out data; ± is the binomial "
        f"standard error. Rows `exact` are false alarms. {verdict}"
    )
    machine = f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}."
    columns = ["guide", "loss of the ELBO, nats", *COLUMNS.values(), "any but the gaps"]
    return "\n\n".join([common.markdown_table(columns, lines), foot, machine])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--gap-repetitions", type=int, default=2, help="of the inference gaps, which take longest")
    parser.add_argument("--gap-data", type=int, default=15)
    parser.add_argument("--simulations", type=int, default=500, help="of each calibration, as in a report")
    parser.add_argument("--data", type=int, default=300, help="held out, for log p(x)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The results of all guides."""
    rows = []
    for guide in guides():
        rows.append(row(guide, given))
        shown = ", ".join(f"{name} {found['rate']:.2f}" for name, found in rows[-1]["power"].items())
        lost = rows[-1]["loss"]
        print(f"{guide.name}: {lost['mean']:z.4f} ± {lost['se']:.4f} nats; {shown}", flush=True)
    return {
        "benchmark": "power",
        "settings": {key: value for key, value in vars(given).items() if key != "out"},
        "rows": rows,
        "machine": common.machine(),
        "revision": common.revision(),
    }


def main() -> None:
    """Measure, print, and write."""
    given = arguments()
    result = measure(given)
    common.write_json(given.out / "results" / "power.json", result)
    common.replace_block(given.out / "README.md", "power", report(result))
    print(f"\n{report(result)}")


if __name__ == "__main__":
    main()
