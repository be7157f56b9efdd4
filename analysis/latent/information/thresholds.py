"""When the information in latents warns or fails: unused latents, and an aggregate posterior far from the prior."""

from typing import TYPE_CHECKING

from analysis.results.verdict import Outcome, Verdict, graded

if TYPE_CHECKING:
    from analysis.latent.information.layer_result import Layer
    from analysis.latent.information.result import LatentSummary

# Conventions. VAEs of MNIST with 2 and 20 latents have an aggregate posterior at 3 to 13 % of the rate from the prior,
# and 3 to 8 % of prior draws in holes; the thresholds are well above that.
_UNUSED_SHARE = 0.5
_KL_SHARE = 0.2
HOLE_LEVEL, _HOLES_WARN, _HOLES_FAIL = 0.01, 0.25, 0.75


def verdicts_of(found: "LatentSummary") -> tuple[Verdict, ...]:
    """Of collapse, of the aggregate posterior against the prior, and of holes."""
    return _collapse(found), _aggregate(found), _holes(found)


def _collapse(found: "LatentSummary") -> Verdict:
    which = ", ".join(name for name, off in zip(found.names, found.unused, strict=True) if off)
    return _use(
        found,
        "Do the latents depend on the data?",
        # An active count that is wrong by one changes the share by 1 / total.
        error=round(found.evaluation.active_units_se / len(found.names), 6),
        unit="share of latents unused",
        advice={
            "fail": "the posterior has collapsed: x is ignored; lower beta, warm the KL up, or lower the likelihood's "
            "variance",
            "warn": f"most latents are unused ({which}): lower latent_dim or beta, or warm the KL up",
            "pass": f"unused: {which}" if which else "",
        },
        name="posterior_collapse",
    )


def layer_verdict(layer: "Layer", *, alone: bool) -> Verdict:
    """Whether a layer is used; ``alone`` is the only one."""
    return _use(
        layer,
        f"Does layer {layer.name} depend on the data?",
        error=None,
        unit="share of its dimensions unused",
        by=" by the conditional KL",
        advice={
            "fail": "this layer has collapsed onto its prior"
            + ("" if alone else ", and the model is one of fewer layers")
            + ": warm the KL up (kl_warmup), give it free bits (free_bits:per=layer), or take structure 'ladder'",
            "warn": "most of its dimensions are unused: fewer would do, or warm the KL up",
            "pass": "" if layer.closed else "judged by activity alone: this layer has no KL in closed form",
        },
        name=f"layer_collapse_{layer.name}",
    )


def _use(
    found: "LatentSummary | Layer",
    question: str,
    *,
    error: float | None,
    unit: str,
    advice: dict[Outcome, str],
    name: str,
    by: str = "",
) -> Verdict:
    """Whether enough latents are neither collapsed nor inactive."""
    share = float(found.unused.mean())
    outcome: Outcome = "fail" if found.unused.all() else "warn" if share > _UNUSED_SHARE else "pass"
    return Verdict(
        question,
        share,
        error,
        unit,
        f"at most {_UNUSED_SHARE:g}",
        f"unused: (epsilon, delta)-collapse of Lucas et al. 2019 (arXiv:1911.02469){by}, or inactive by Burda et al. "
        "2016, sec. 5 (arXiv:1509.00519) and without information about x; the share is a convention",
        outcome,
        advice[outcome],
        name,
    )


def _aggregate(found: "LatentSummary") -> Verdict:
    # Below a hundredth of a nat no share of a rate matters.
    bound, limit = found.marginal_kl, max(_KL_SHARE * found.rate, 0.01)
    far = bound.lower - 2 * bound.lower_se > limit
    advice = ""
    if far:
        advice = (
            "draws of the prior do not look like the data's latents: choose a learned prior ('mixture', 'vamp', "
            "'flow'), which would gain at least these nats"
        )
    elif bound.upper - 2 * bound.upper_se > limit:
        advice = (
            f"a lower bound: at most {bound.upper:.3g}, since {found.num_compared:,} data resolve at most log N = "
            f"{found.ceiling:.2g} nats of information"
        )
    return Verdict(
        "Is the aggregate posterior close to the prior?",
        bound.lower,
        bound.lower_se,
        "nats per datum, KL(q(z) || p(z)), at least",
        f"at most {limit:.3g}, {_KL_SHARE:.0%} of the rate",
        "Hoffman & Johnson 2016, ELBO surgery (the KL is the gain of a better prior); the share is a convention",
        "warn" if far else "pass",
        advice,
        "aggregate_posterior",
    )


def _holes(found: "LatentSummary") -> Verdict:
    surely = found.holes - 2 * found.holes_se
    outcome = graded(surely, _HOLES_WARN, _HOLES_FAIL)
    return Verdict(
        "Do draws of the prior fall where the aggregate posterior has mass?",
        found.holes,
        found.holes_se,
        f"share of prior draws below the {HOLE_LEVEL:.0%} quantile of q(z)",
        f"at most {_HOLES_WARN:g} ({HOLE_LEVEL:g} if prior and aggregate posterior agree)",
        "Rosca et al. 2018 (arXiv:1802.06847), low-posterior samples; the share is a convention",
        outcome,
        remedy="samples from there are not like data: choose a learned prior, or sample from the aggregate posterior",
        name="prior_holes",
    )
