"""``python -m benchmarks.evidence``: log p(x) of every estimator beside the truth, and false alarms of the report.

Two parts, each alone with ``--only``. ``estimates``: importance sampling, annealing and its bounds on ten models whose
log p(x) is known; errors in units of the stated standard error over many repetitions, which have the mean 0 and the
standard deviation 1 where the errors are right. ``alarms``: reports of models with their exact posterior as guide, on
data of the model: every verdict that is not ``pass`` is a false alarm.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
from torch import Tensor

from analysis import AnnealingConfig, ReportConfig, elpd_of
from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, why_not
from analysis.posterior.annealing import anneal, anneal_back, joints, simulate
from analysis.posterior.hamiltonian import Start
from analysis.posterior.starts import best_of, best_reverse
from analysis.stats.importance import log_evidence
from benchmarks import common
from benchmarks.exact import near, pairs
from benchmarks.exact.pairs import ExactPair
from benchmarks.power import rate
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.densities.pair import Pair

type Array = np.ndarray[Any, Any]

INCONCLUSIVE = "inconclusive"
_STARTS: tuple[Start, ...] = ("guide", "prior")
# Nothing in it has a verdict.
_WITHOUT_VERDICTS = ("structure",)
# Columns of the table of false alarms: title, and names of the verdicts.
FAMILIES = {
    "log p(x)": ("pareto_k", "log_px_mcse", "log_px_bias", "sandwich"),
    "replications": ("predictive_posterior",),
    "prior predictive": ("predictive_held_out",),
    "PIT": ("predictive_pit_held_out",),
    "calibration": ("sbc", "guide_width", "guide_bias", "joint_coverage", "tarp"),
    "symmetric KL": ("symmetric_kl",),
    "latents": ("posterior_collapse", "aggregate_posterior", "prior_holes", "layer_collapse_a", "layer_collapse_z"),
    "samples": ("classifier_test", "coverage"),
    "inference gaps": (
        "amortization_gap", "approximation_gap", "local_convergence", "log_px_agreement", "annealing_bias",
        "annealing_acceptance", "bdmc_gap",
    ),
}  # fmt: skip


# --- estimates --------------------------------------------------------------------------------------------------------


def estimates(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a model; repetitions are further data, since every datum has draws and chains of its own."""
    for make in near.PAIRS:
        exact, began = make(), perf_counter()
        yield {"model": exact.name, **estimates_of(exact, given), "seconds": perf_counter() - began}


def estimates_of(exact: ExactPair, given: argparse.Namespace) -> dict[str, Any]:
    """Errors of every estimator on one model."""
    config = AnnealingConfig(num_temperatures=given.temperatures)
    size = (given.repetitions, given.data)
    seed = seed_of(exact, given)
    split, latents = simulate(exact.pair, given.repetitions * given.data, seed=derive_seed(seed, 0))
    truth = exact.log_evidence(split.stored(slice(None))).numpy()
    sampled = elpd_of(exact.pair, split, num_draws=given.draws, seed=derive_seed(seed, 1))
    forward, back, first = [], [], 0
    for number, joint in enumerate(joints(exact.pair, split, config.num_chains)):
        posterior = joint.flat({name: z[None, first : first + len(joint)] for name, z in latents.items()})
        first += len(joint)
        with isolated(derive_seed(seed, 2, number)):
            ahead = [anneal(joint, start, config) for start in _STARTS]
            behind = [
                anneal_back(joint, posterior, start, config, found) for start, found in zip(_STARTS, ahead, strict=True)
            ]
        forward.append(best_of(ahead))
        back.append(best_reverse(behind))
    annealed = [np.concatenate([getattr(part, name) for part in forward]) for name in ("log_px", "log_px_se")]
    upper = -log_evidence(-np.concatenate(back, axis=1))[0]
    return {
        "log_px": float(truth.mean()),
        "bad_k": float(sampled.bad.mean()),
        "importance": stated(sampled.pointwise - truth, sampled.pointwise_mcse, size),
        "annealed": stated(annealed[0] - truth, annealed[1], size),
        # Of the bounds the spread over data is stated: chains back from one posterior draw do not show its luck.
        "lower": over_data(annealed[0] - truth, size),
        "upper": over_data(upper - truth, size),
        "gap": over_data(upper - annealed[0], size),
    }


def seed_of(exact: ExactPair, given: argparse.Namespace) -> int:
    """Another for every model, so that their errors are independent."""
    return derive_seed(given.seed, crc32(exact.name.encode()))


def stated(error: Array, se: Array, size: tuple[int, int]) -> dict[str, float]:
    """Errors of averages over the data of a repetition, in units of their stated standard errors."""
    mean = error.reshape(size).mean(1)
    return _standardised(mean, np.sqrt((se**2).reshape(size).sum(1)) / size[1])


def over_data(error: Array, size: tuple[int, int]) -> dict[str, float]:
    """The same with the standard error from the spread over the data of a repetition."""
    values = error.reshape(size)
    return _standardised(values.mean(1), values.std(1, ddof=1) / sqrt(size[1]))


def _standardised(mean: Array, se: Array) -> dict[str, float]:
    z = mean / se
    return {
        "error": float(mean.mean()),
        "error_se": float(mean.std(ddof=1) / sqrt(len(mean))),
        "stated": float(np.sqrt((se**2).mean())),
        "mean_z": float(z.mean()),
        "sd_z": float(z.std(ddof=1)),
        "beyond": float((np.abs(z) > 2).mean()),
    }


def estimates_table(part: dict[str, Any]) -> str:
    """Errors of the estimators as Markdown."""
    columns = ["model", "log p(x)", "k-hat bad"]
    for name in ("importance", "annealing"):
        columns += [f"{name}: error, nats", "stated", "mean z", "sd z", "beyond 2"]
    columns += ["lower bound: error", "upper bound: error", "upper - lower", "its sd z"]
    lines = []
    for row in part["rows"]:
        line = [row["model"], f"{row['log_px']:.3f}", f"{row['bad_k']:.0%}"]
        for name in ("importance", "annealed"):
            found = row[name]
            line += [f"{found['error']:z.4f} ± {found['error_se']:.4f}", f"{found['stated']:.4f}"]
            line += [f"{found['mean_z']:z.2f}", f"{found['sd_z']:.2f}", f"{found['beyond']:.0%}"]
        line += [f"{row[name]['error']:z.4f} ± {row[name]['error_se']:.4f}" for name in ("lower", "upper", "gap")]
        lines.append([*line, f"{row['gap']['sd_z']:.2f}"])
    return common.markdown_table(columns, lines)


# --- false alarms -----------------------------------------------------------------------------------------------------


def alarms(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a model with its exact guide: the outcome of every verdict in every report."""
    return (alarms_of(make, given) for make in pairs.PAIRS)


def alarms_of(make: Callable[[], ExactPair], given: argparse.Namespace) -> dict[str, Any]:
    """Outcomes of the reports of one model; inference gaps in the first repetitions alone, since they take longest."""
    exact, began = make(), perf_counter()
    outcomes = []
    for repetition in range(given.reports):
        names = [name for name in DIAGNOSTICS if name != "gaps" or repetition < given.gap_reports]
        seed = derive_seed(seed_of(exact, given), 3, repetition)
        config = ReportConfig(num_draws=given.report_draws, num_gap_data=given.gap_data)
        outcomes.append(outcomes_of(exact.pair, exact.data(given.report_data, seed), names, config, seed))
    return {"model": exact.name, "outcomes": outcomes, "seconds": perf_counter() - began}


def outcomes_of(pair: Pair, x: Tensor, names: Sequence[str], config: ReportConfig, seed: int) -> dict[str, str]:
    """Outcomes of a report by the verdict's name, without its pictures, in which most of its time goes.

    A verdict that warns because the estimate is too uncertain is ``inconclusive``.
    """
    split = as_split(x)
    context = Context(pair=pair, test=split, stored=split, config=config, seed=seed)
    chosen = [DIAGNOSTICS[name]() for name in names if name not in _WITHOUT_VERDICTS]
    chosen = [one for one in chosen if not context.lacks(one.requires) and why_not(one, context) is None]
    context.collect({name: make for one in chosen for name, make in one.reducers(context).items()})
    found: dict[str, str] = {}
    for diagnostic in chosen:
        try:
            result = diagnostic.run(context)
        except (ValueError, ArithmeticError):  # the report gives the reason, and no verdict
            continue
        for verdict in result.verdicts:
            vague = verdict.outcome == "warn" and INCONCLUSIVE in verdict.advice
            found[verdict.name] = INCONCLUSIVE if vague else verdict.outcome
    return found


def alarms_table(part: dict[str, Any]) -> str:
    """Shares of reports with a verdict that is not ``pass``, by family, as Markdown."""
    lines = [_line(row["model"], row["outcomes"]) for row in part["rows"]]
    lines.append(_line("all", [one for row in part["rows"] for one in row["outcomes"]]))
    return common.markdown_table(["model", *FAMILIES, "any", "any fails", INCONCLUSIVE], lines)


def _line(name: str, outcomes: list[dict[str, str]]) -> list[str]:
    cells = [name]
    for names in FAMILIES.values():
        judged = [[one[each] in ("warn", "fail") for each in names if each in one] for one in outcomes]
        cells.append(_share([any(each) for each in judged if each]))
    kinds = ({"warn", "fail"}, {"fail"}, {INCONCLUSIVE})
    return [*cells, *(_share([bool(kind & set(one.values())) for one in outcomes]) for kind in kinds)]


def _share(hits: list[bool]) -> str:
    if not hits:
        return ""
    found = rate(hits)
    return f"{found['rate']:.1%} ± {found['se']:.1%}"


# --- both -------------------------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    parts = []
    if "estimates" in result:
        part = result["estimates"]
        settings = part["settings"]
        parts += [
            estimates_table(part),
            f"{settings['repetitions']} repetitions of {settings['data']} data; {settings['draws']:,} draws of the "
            f"guide, 10 chains from the guide and from the prior with {settings['temperatures']} temperatures. Error: "
            "of the average over data, mean over repetitions ± its standard error; stated: standard error that the "
            "estimator gives; z: error in units of it.",
            _machine(part),
        ]
    if "alarms" in result:
        part = result["alarms"]
        settings = part["settings"]
        parts += [
            alarms_table(part),
            f"{settings['reports']} reports of each model with its exact guide, on {settings['report_data']} data of "
            f"the model, {settings['report_draws']} draws each; the gaps of {settings['gap_data']} data in "
            f"{settings['gap_reports']} of them. Calibration, replications, prior predictive and PIT each state 5 %, "
            "and leave out differences that do not matter. ± is the binomial standard error.",
            _machine(part),
        ]
    return "\n\n".join(parts)


def _machine(part: dict[str, Any]) -> str:
    return f"Machine: {common.machine_line(part['machine'])}; vae_pyro at {part['revision'] or 'no revision'}."


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("estimates", "alarms"), action="append")
    parser.add_argument("--repetitions", type=int, default=50, help="of the estimates")
    parser.add_argument("--data", type=int, default=10, help="in each repetition")
    parser.add_argument("--draws", type=int, default=1000, help="of the guide for importance sampling")
    parser.add_argument("--temperatures", type=int, default=200, help="of annealing")
    parser.add_argument("--reports", type=int, default=20, help="of each model")
    parser.add_argument("--report-data", type=int, default=150)
    parser.add_argument("--report-draws", type=int, default=200)
    parser.add_argument("--gap-reports", type=int, default=1, help="of them with inference gaps")
    parser.add_argument("--gap-data", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Measure the chosen parts, add them to earlier results, print and write."""
    given = arguments()
    file = given.out / "results" / "evidence.json"
    for name, part in {"estimates": estimates, "alarms": alarms}.items():
        if given.only and name not in given.only:
            continue
        settings = {key: value for key, value in vars(given).items() if key not in ("out", "only")}
        about = {"settings": settings, "machine": common.machine(), "revision": common.revision()}
        rows = []
        for row in part(given):
            rows.append(row)
            print(row, flush=True)
            common.write_json(file, {**(common.read_json(file) or {}), name: {"rows": rows, **about}})
    result = common.read_json(file) or {}
    common.replace_block(given.out / "README.md", "evidence", report(result))
    print(f"\n{report(result)}")


if __name__ == "__main__":
    main()
