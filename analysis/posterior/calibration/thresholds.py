"""When a calibration warns or fails: a departure fails where it is both significant and serious."""

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.remedies import REFINE, REFIT
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.ranks import binomial_se

if TYPE_CHECKING:
    from analysis.posterior.calibration.result import Calibration

# A departure is serious where 90 % intervals miss twice as often as they should, or half as often. For a Gaussian that
# is a width off by these factors, or a mean off by this many standard deviations.
_NARROW, _WIDE, _SHIFT = 1.645 / 1.282, 1.645 / 1.960, 0.679
_OFF = 0.1
_CONVENTION = "convention: 90 % intervals then miss twice, or half, as often as nominal"
_BANDS = "with the bands of Säilynoja et al. 2022"
_TRAIN = f"{REFIT}, or fit with a larger encoder"
_RICHER = f"choose a richer family (full_rank, flow), or {REFINE}"


def verdicts_of(calibration: "Calibration") -> tuple[Verdict, ...]:
    """Of the ranks, of width and bias of the worst latent, of joint coverage, of TARP and of the evidence."""
    rows = [_ranks(calibration)]
    if np.isfinite(calibration.bias).any():
        rows += [_width(calibration), _bias(calibration)]
    evidence = calibration.evidence.verdicts if calibration.evidence else ()
    return (*rows, _joint(calibration), _tarp(calibration), *evidence)


def _ranks(calibration: "Calibration") -> Verdict:
    level, cover, _ = calibration.coverage_at(0.9)
    joint_level, joint, _ = calibration.joint_coverage_at(0.9)
    p = float(calibration.p_values[:-2].min())
    serious = bool(_serious(cover, level).any() or _serious(joint, joint_level))
    return Verdict(
        "Are the SBC ranks uniform?",
        min(p * calibration.num_tests, 1.0),
        None,
        "",
        f"{_family(calibration)}; by convention serious where intervals miss twice, or half, as often as nominal",
        f"Talts et al. 2018, theorem 1, {_BANDS}",
        *_judged(
            calibration, p, serious, f"{calibration.statement}; {REFIT}", blind=_few(calibration, 1 - level, level)
        ),
        "sbc",
    )


def _width(calibration: "Calibration") -> Verdict:
    row = int(np.argmin(calibration.p_width))
    spread = float(calibration.spread[row])
    advice = f"too wide: {_TRAIN}" if spread < 1 else f"too narrow: {_TRAIN}, or {_RICHER}"
    return Verdict(
        f"Is the guide as wide as the posterior (worst latent, {calibration.names[row]})?",
        spread,
        float(calibration.spread_se[row]),
        "widths of the guide",
        f"1, {_family(calibration)}; serious outside {_WIDE:.2f} to {_NARROW:.2f}",
        _CONVENTION,
        *_judged(
            calibration,
            calibration.p_width[row],
            not _WIDE <= spread <= _NARROW,
            advice,
            blind=2 * float(calibration.spread_se[row]) > 1 - _WIDE,
        ),
        "guide_width",
    )


def _bias(calibration: "Calibration") -> Verdict:
    row = int(np.argmin(calibration.p_bias))
    bias = float(calibration.bias[row])
    return Verdict(
        f"Is the guide centred on the posterior (worst latent, {calibration.names[row]})?",
        bias,
        float(calibration.bias_se[row]),
        "standard deviations of the guide",
        f"0, {_family(calibration)}; serious beyond {_SHIFT:.2f}",
        _CONVENTION,
        *_judged(
            calibration,
            calibration.p_bias[row],
            abs(bias) > _SHIFT,
            f"biased: {_TRAIN}",
            blind=2 * float(calibration.bias_se[row]) > _SHIFT,
        ),
        "guide_bias",
    )


def _joint(calibration: "Calibration") -> Verdict:
    level, joint, error = calibration.joint_coverage_at(0.9)
    advice = (
        f"overconfident: {REFIT}, by method 'sleep' where regions are to cover, or {_RICHER}"
        if joint < level
        else f"larger than necessary: {_TRAIN}"
    )
    return Verdict(
        f"Is the coverage of {level:.0%} highest-density regions of the guide nominal?",
        joint,
        error,
        "",
        f"{level:.2f}, {_family(calibration)}; by convention serious where they miss twice, or half, as often",
        f"Hermans et al. 2022, {_BANDS}",
        *_judged(
            calibration,
            float(calibration.p_values[-2]),
            bool(_serious(joint, level)),
            advice,
            blind=_few(calibration, 1 - level, level),
        ),
        "joint_coverage",
    )


def _tarp(calibration: "Calibration") -> Verdict:
    p = float(calibration.p_values[-1])
    off = float(np.abs(calibration.tarp_coverage[1] - calibration.band.grid).max())
    return Verdict(
        "Is expected coverage (TARP) nominal?",
        min(p * calibration.num_tests, 1.0),
        None,
        "",
        f"{_family(calibration)}; by convention serious where coverage is off by more than {_OFF:g}",
        f"Lemos et al. 2023, {_BANDS}",
        *_judged(
            calibration,
            p,
            off > _OFF,
            f"coverage is off by up to {off:.2f}; the other rows describe how; {REFIT}",
            blind=_few(calibration, _OFF, 0.5),
        ),
        "tarp",
    )


def _family(calibration: "Calibration") -> str:
    return f"family-wise p above {1 - calibration.level:.2g}"


def _few(calibration: "Calibration", serious: float, level: float) -> bool:
    """Whether two standard errors of a coverage are larger than what is serious.

    Of the nominal coverage, since that of few simulations may have no spread at all.
    """
    return 2 * float(binomial_se(level, calibration.num_simulations)) > serious


def _judged(
    calibration: "Calibration", p_value: float, serious: bool, advice: str, *, blind: bool = False
) -> tuple[Outcome, str]:
    """``blind``: two standard errors are larger than what is serious, so that nothing found is no evidence."""
    if not calibration.significant(p_value):
        if not blind:
            return "pass", ""
        return "warn", f"inconclusive: raise num_simulations (now {calibration.num_simulations:,})"
    return ("fail" if serious else "warn"), advice


def _serious(share: Any, level: float) -> Any:
    return (share < 1 - 2 * (1 - level)) | (share > 1 - (1 - level) / 2)
