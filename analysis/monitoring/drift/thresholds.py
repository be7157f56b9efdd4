"""When a drift test warns or fails: exact p-values at the false-alarm rate that was asked for, and a tenth of it."""

from typing import TYPE_CHECKING

from analysis.results.result import finite_or_none
from analysis.results.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from analysis.monitoring.drift.result import Drift

STATISTICS = ("log_px", "mmd", "classifier")


def verdicts_of(drift: "Drift") -> tuple[Verdict, ...]:
    """Of all three statistics together, then of each, its p-value adjusted for being three."""
    shift, shift_se = drift.log_px_shift
    source = "exact permutation test: Phipson & Smyth 2010, arXiv:1603.05766, sec. 3; minP: Westfall & Young 1993"
    found = _outcome(drift, drift.p_value)
    expected = f"p above {drift.alpha:g}, adjusted for three statistics; here p = "
    rows = [
        Verdict(
            "Do new data come from the distribution of the held-out data?",
            drift.p_value,
            drift.p_value_mcse,
            "p-value",
            f"above {drift.alpha:g}; fails at {drift.alpha / 10:g} or less",
            source,
            found,
            remedy="examine the most surprising data and the latents that moved; fit again, or continue the fit "
            "with replay (--init-from RUN --replay 0.5)"
            + ("" if found == "fail" else f"; one test in {1 / drift.alpha:.0f} rejects by chance: test more data"),
            name="drift",
        )
    ]
    estimates = (
        ("Are new data as probable as held-out data?", shift, shift_se, "nats per datum, difference of means"),
        (
            "Do their latents have the distribution of those of held-out data?",
            drift.discrepancy.value,
            drift.discrepancy.standard_error,
            "squared maximum mean discrepancy",
        ),
        (
            "Can a classifier distinguish their latents from those of held-out data?",
            drift.classifier.auroc,
            drift.classifier.auroc_se,
            "area under the ROC curve",
        ),
    )
    for (question, value, error, unit), name, p in zip(estimates, STATISTICS, drift.adjusted, strict=True):
        known = finite_or_none(error)
        threshold, key = f"{expected}{p:.3g}", f"drift_{name}"
        rows.append(Verdict(question, value, known, unit, threshold, source, _outcome(drift, p), "", key))
    return tuple(rows)


def _outcome(drift: "Drift", p: float) -> Outcome:
    return "pass" if p > drift.alpha else "warn" if p > drift.alpha / 10 else "fail"
