"""How the programs of a pair can be run, tried at a few draws on a few rows: ways, masks, and what is read of x."""

from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from vae_pyro.data.split import Split
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.programs.running import Sites, Way, fixed, sample_sites
from vae_pyro.densities.sites import GuideDraws, SiteScores

_PARTICLES = 2
_CHANCE = (
    "of the {role} differs between two runs at the same draws: something in it is random and no sample site; take its "
    "noise out (dropout that ignores the module's mode, torch.rand), or make it a site"
)


def try_out(found: Programs, split: Split) -> Programs:
    """The programs with the ways that their particles are run, once these and their masks were tried.

    Args:
        found: with ``template``, the rows that they are tried on.
        split: all data.

    Raises:
        ValueError: densities are random, or depend on what a mask hides.
    """
    found, drawn = _way_of_guide(found)
    found = _way_of_model(found, drawn)
    _check_support(found, drawn)
    _check_rows(found, drawn)
    _check_mask(found, drawn, split)
    return replace(found, reads_data=_reads_data(found, drawn))


def _way_of_guide(found: Programs) -> tuple[Programs, dict[str, Tensor]]:
    """The first way that gives the densities of single runs at the same draws."""
    nothing = _x(found).new_zeros(_PARTICLES, len(_x(found)))
    # A guide with parameters for each row has none for copies of them.
    for way in (way for way in Way if found.amortized or way is not Way.FOLDED):
        tried = replace(found, guide_way=way)
        try:
            sites = _run_guide(tried, {})
            drawn = {name: site.value for name, site in sites.items() if not site.observed}
            single = _run_guide(replace(found, guide_way=Way.LOOPED), drawn)
        except Exception:
            if way is Way.LOOPED:
                raise
            continue  # whatever a program raises at further dimensions
        if _agree(GuideDraws.of(sites, nothing).log_guide, GuideDraws.of(single, nothing).log_guide):
            return tried, {name: drawn[name] for name in found.latents}
    raise ValueError(f"log q(z | x) {_CHANCE.format(role='guide')}")


def _way_of_model(found: Programs, drawn: dict[str, Tensor]) -> Programs:
    """Likewise for the model."""
    single = _scores(replace(found, model_way=Way.LOOPED), drawn)
    for way in Way:
        tried = replace(found, model_way=way)
        try:
            scores = _scores(tried, drawn)
        except Exception:
            if way is Way.LOOPED:
                raise
            continue
        same = [_agree(scores.log_prior[name], single.log_prior[name]) for name in single.log_prior]
        if all(same) and _agree(scores.log_likelihood, single.log_likelihood):
            return tried
    raise ValueError(f"log p(x, z) {_CHANCE.format(role='model')}")


def _check_support(found: Programs, drawn: dict[str, Tensor]) -> None:
    """Refuse data outside the support of what observes them, where the program leaves validation on."""
    x, given = _x(found), _given(found)
    if "mask" in given or found.summed:
        return  # what is not observed is 0, whether that is in the support or not
    first = fixed({name: value[0] for name, value in drawn.items()})
    model = poutine.replay(found.model, trace=first)
    with pyro.validation_enabled(True):
        try:
            trace = poutine.trace(model).get_trace(x, **found.of_model.given(None, given.get("y")))
        except Exception:
            return  # parameters that validation refuses, which estimates do not ask for
        for name, site in sample_sites(trace):
            if site["is_observed"] and name in found.observed_names:
                try:
                    site["fn"].log_prob(site["value"])
                except ValueError as error:
                    reason = " ".join(str(error).partition("but found invalid values")[0].split()).rstrip(" ,")
                    raise ValueError(
                        f"data are outside the support of the distribution at site {name!r}: {reason}; scale or encode "
                        "them as the model requires, or make it with validate_args=False"
                    ) from error


def _check_rows(found: Programs, drawn: dict[str, Tensor]) -> None:
    """Refuse programs whose densities of a datum depend on the other data of a batch."""
    if not found.amortized:
        return
    x, few = _x(found), 2
    given = {name: value[:few] for name, value in _given(found).items()}
    some = {name: value[:, :few] for name, value in drawn.items()}
    try:
        alone = found.score(x[:few], some, num_particles=_PARTICLES, **given)
        guide = found.score_guide(x[:few], some, **given) if some else None
        among = _scores(found, drawn)
        guide_among = found.score_guide(x, drawn, **_given(found)) if some else None
    except Exception:
        return  # sites on the way to latents, or fewer rows than a program takes
    pairs = [("model", alone.log_likelihood, among.log_likelihood), ("model", alone.total_prior, among.total_prior)]
    pairs += [("guide", guide, guide_among)] if guide is not None and guide_among is not None else []
    for role, first, whole in pairs:
        second = whole[:, :few]
        certain = first.isfinite() & second.isfinite()  # a point mass is hit or missed by rounding
        if not _agree(first[certain], second[certain], 1e-2):
            raise ValueError(
                f"log densities of the {role} at a datum depend on the other data of its batch, as after normalisation "
                "by a batch's own moments; keep running moments (track_running_stats=True), or normalise single data"
            )


def _check_mask(found: Programs, drawn: dict[str, Tensor], split: Split) -> None:
    """Refuse a model that scores what its mask hides."""
    mask, rows = split.mask, len(_x(found))
    if mask is None or not found.amortized:
        return
    some = (~mask.flatten(1).all(1)).nonzero().flatten()[:rows]
    if not len(some):
        return
    x, given = split.batch(some, _x(found).dtype)
    index, device = torch.arange(rows, device=x.device) % len(x), _x(found).device
    x, given = x[index].to(device), {name: value[index].to(device) for name, value in given.items()}
    hidden = ~given["mask"]
    seen = x[~hidden] if bool((~hidden).any()) else x.new_tensor([0.0, 1.0])
    both = [
        found.score(torch.where(hidden, other, x), drawn, num_particles=_PARTICLES, **given).log_likelihood
        for other in (seen.min(), seen.max())
    ]
    if not _agree(both[0], both[1]):
        raise ValueError(
            f"{int((~mask).sum()):,} elements of x are not observed (NaN, or False in mask), and log p(x | z) of the "
            "model depends on what stands in their place, though it takes a mask; score observed elements alone, as in "
            "distribution.mask(mask).to_event(1)"
        )


def _reads_data(found: Programs, drawn: dict[str, Tensor]) -> bool:
    """Whether p(x | z) depends on the x that the model is called with."""
    if found.of_model.size:
        return False  # it draws x without any
    try:
        here, there = (_scores(found, drawn, x) for x in (_x(found), _x(found).flip(0)))
        for name in found.data_sites:
            value = here.sites[name].value
            if not _agree(*(scores.sites[name].distribution.log_prob(value) for scores in (here, there))):
                return True
    except Exception:
        return False  # rows in another order are no data of every program
    return False


def _x(found: Programs) -> Tensor:
    assert found.template is not None
    return found.template[0]


def _given(found: Programs) -> dict[str, Any]:
    assert found.template is not None
    return found.template[1]


def _run_guide(found: Programs, values: dict[str, Tensor]) -> Sites:
    x, given = _x(found), _given(found)
    return found.run_guide(x, (_PARTICLES, len(x)), values, given.get("mask"), given.get("y"))


def _scores(found: Programs, drawn: dict[str, Tensor], x: Tensor | None = None) -> SiteScores:
    return found.score(_x(found) if x is None else x, drawn, num_particles=_PARTICLES, **_given(found))


def _agree(first: Tensor, second: Tensor, absolute: float = 1e-3) -> bool:
    """Equal but for rounding, which a narrow guide magnifies."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=absolute, equal_nan=True)
