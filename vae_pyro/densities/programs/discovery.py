"""Find out about the programs of a pair, from one trace on a few rows of data; or say what cannot be done with them."""

from contextlib import ExitStack
from math import prod
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from vae_pyro.core.isolation import isolated
from vae_pyro.data.split import Split
from vae_pyro.densities.programs.arguments import Arguments, require_arguments, without_handlers
from vae_pyro.densities.programs.module_state import ModuleState
from vae_pyro.densities.programs.programs import Programs
from vae_pyro.densities.programs.reading import Trace, observed_sites, plate_over_data, refuse_outside, values_of
from vae_pyro.densities.programs.running import fixed, over_rows, sample_sites
from vae_pyro.densities.programs.trials import try_out
from vae_pyro.densities.sites import MISSING_SITE, Program, is_discrete

# Rows of the first trace.
_ROWS = 5
# Values of all sites together that are summed out.
_MOST_CHOICES = 1000


def discover(
    model: Program,
    guide: Program,
    split: Split,
    place: tuple[torch.device, torch.dtype] | None,
    *,
    observed: tuple[str, ...] | None = None,
    plate: str | None = None,
) -> Programs:
    """Find out about two programs.

    Args:
        model: Pyro model.
        guide: Pyro guide.
        split: the data, with fixed observations.
        place: device and floating-point type of the programs, where these are known.
        observed: sites that log p(x | z) is summed over; ``None`` finds them.
        plate: name of the plate over data; ``None`` finds it.

    Raises:
        ValueError: the programs cannot be run on these data, have no density of a datum, or can be read in two ways.
            The message names the site or the argument, and the way out.
    """
    search = _Search(model, guide, split, observed, plate)
    with isolated(0), torch.no_grad(), ExitStack() as stack:
        stack.enter_context(search.state.watching())
        search.start(place)
        search.read_sites()
        return search.finish()


class _Search:
    """The steps of `discover`."""

    def __init__(
        self, model: Program, guide: Program, split: Split, observed: tuple[str, ...] | None, plate: str | None
    ) -> None:
        self.model, self.guide, self.split, self.observed, self.plate = model, guide, split, observed, plate
        self.of_model, self.of_guide = Arguments.of(model, "model"), Arguments.of(guide, "guide")
        require_arguments(self.of_model, self.of_guide, split.mask, split.y)
        self.state = ModuleState(model, guide)
        inner = without_handlers(guide)
        if isinstance(inner, AutoGuide) and inner.prototype_trace is None:
            raise ValueError(
                f"the guide {type(inner).__name__} has not been set up: it makes its parameters when it is first run, "
                "on the rows that it is run on; fit it before it is estimated with"
            )

    # --- traces ---------------------------------------------------------------------------------------------------

    def start(self, place: tuple[torch.device, torch.dtype] | None) -> None:
        """Trace the guide, and the model at its draws, on a few rows."""
        self.amortized = True
        self.device, self.dtype = place or (self.split.device, _floating(self.split.dtype))
        try:
            self.traces = self.trace(self.rows(_ROWS))
        except ProgramError as failed:
            known = next(self.state.parameters(), None)
            if place is None and known is not None and (known.device, known.dtype) != (self.device, self.dtype):
                self.device, self.dtype = known.device, known.dtype
                return self.start((self.device, self.dtype))
            self.on_all_rows(failed)
        else:
            if self.fixed_rows(self.traces[0]):
                self.on_all_rows(None)

    def rows(self, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The first rows of the data, over and over where there are fewer."""
        x, given = self.split.batch(slice(0, min(count, len(self.split))), self.dtype)
        index = torch.arange(count, device=x.device) % len(x)
        if "mask" in given:
            x = torch.where(given["mask"], x, torch.zeros_like(x))
        beside = {name: value[index].to(self.device) for name, value in given.items()}
        return x[index].to(self.device), beside

    def trace(self, rows: tuple[Tensor, dict[str, Tensor]]) -> tuple[Trace, Trace]:
        """Traces of guide and model, and what they were called with."""
        x, given = rows
        self.x, self.given = x, given
        mask, y = given.get("mask"), given.get("y")
        of_guide, of_model = self.of_guide.given(mask, y), self.of_model.given(mask, y)
        guide = self.attempt("guide", lambda: poutine.trace(self.guide).get_trace(x, **of_guide))
        values = {name: site["value"] for name, site in sample_sites(guide) if not site["is_observed"]}
        if self.fixed_rows(guide):
            return guide, guide
        replayed = poutine.replay(self.model, trace=fixed(values))
        try:
            return guide, self.attempt("model", lambda: poutine.trace(replayed).get_trace(x, **of_model))
        except ProgramError as failed:
            self.compare_shapes(values, of_model, failed)
            raise

    def compare_shapes(self, values: dict[str, Tensor], of_model: dict[str, Any], failed: "ProgramError") -> None:
        """Say which draw of the guide the model cannot have made, where that is why it cannot be run at the draws."""
        try:
            free = dict(sample_sites(poutine.trace(self.model).get_trace(self.x, **of_model)))
        except Exception:
            return  # it cannot be run at its own draws, either
        for name, value in values.items():
            if name in free and free[name]["value"].shape != value.shape:
                raise ProgramError(
                    f"latent site {name!r} has shape {tuple(free[name]['value'].shape)} in the model and "
                    f"{tuple(value.shape)} in the guide, on {len(self.x)} rows; draw it inside of the same plate over "
                    "data, with the same event"
                ) from failed

    def attempt(self, role: str, call: Any) -> Trace:
        try:
            return call()
        except Exception as error:  # whatever a program raises
            reason = str(error).partition("\nTrace Shapes:")[0].strip().partition("\n")[0]
            raise ProgramError(
                f"the {role} cannot be run on {len(self.x)} rows of the data, {tuple(self.x.shape)}: "
                f"{type(error).__name__}: {reason}"
            ) from error

    def fixed_rows(self, guide: Trace) -> bool:
        """Whether the guide draws for other rows than it was given."""
        sizes = {
            frame.size for _, site in sample_sites(guide) for frame in site["cond_indep_stack"] if frame.vectorized
        }
        return bool(sizes) and len(self.x) not in sizes and len(self.split) in sizes

    def on_all_rows(self, failed: "ProgramError | None") -> None:
        """Take a guide that has parameters for each row to be for these."""
        if len(self.split) == len(self.x):
            raise failed or ValueError("the guide draws for other rows than it was given")
        few = len(self.x)
        try:
            self.traces = self.trace(self.rows(len(self.split)))
        except ProgramError as again:
            inner = without_handlers(self.guide)
            if isinstance(inner, AutoGuide) or (failed and "guide" not in str(failed)[:9]):
                raise self.not_amortized(inner) if isinstance(inner, AutoGuide) else (failed or again) from again
            raise (failed or again) from again
        frames = {frame.size for _, site in sample_sites(self.traces[0]) for frame in site["cond_indep_stack"]}
        if len(self.split) not in frames and few not in frames:
            raise failed or self.not_amortized(without_handlers(self.guide))
        self.amortized = False

    def not_amortized(self, guide: Any) -> ValueError:
        return ValueError(
            f"the guide {type(guide).__name__} is not amortized: it has parameters for each of the rows that it was "
            f"fitted to, and knows nothing of these {len(self.split)} rows; give the rows that it was fitted to, in "
            "their order, or a guide that computes its parameters from x"
        )

    # --- what the traces say --------------------------------------------------------------------------------------

    def read_sites(self) -> None:
        """Plate, latents and observed sites."""
        guide, model = self.traces
        self.plate = self.plate or plate_over_data(model, len(self.x), self.retrace if self.amortized else None)
        of_model, of_guide = dict(sample_sites(model)), dict(sample_sites(guide))
        for role, sites in (("model", of_model), ("guide", of_guide)):
            for name, site in sites.items():
                if over_rows(site, len(self.x), self.plate) is None and not (role == "guide" and site["is_observed"]):
                    refuse_outside(role, name, site, self.plate)
        latents = [
            name for name, site in of_guide.items() if not site["is_observed"] and not site["infer"].get("is_auxiliary")
        ]
        for name in latents:
            if name not in of_model or of_model[name]["is_observed"]:
                raise ValueError(
                    f"site {name!r} of the guide is not in the model; only the model's latents belong there, and steps "
                    'towards them with infer={"is_auxiliary": True}'
                )
        self.kinds: dict[str, Any] = {
            name: "data" if name == MISSING_SITE else "class" if is_discrete(of_guide[name]["fn"]) else "code"
            for name in latents
        }
        self.summed = {
            name: values_of(name, site)
            for name, site in of_model.items()
            if not site["is_observed"] and name not in latents
        }
        count = prod(len(values) for values in self.summed.values())
        if count > _MOST_CHOICES:
            raise ValueError(
                f"the sites {', '.join(self.summed)} of the model are not in the guide, and have {count:,} values "
                f"together, of which {_MOST_CHOICES:,} at most are summed out; draw them in the guide"
            )
        observed = {name: site for name, site in of_model.items() if site["is_observed"]}
        self.counted, self.data_sites = observed_sites(observed, self.x, self.observed, list(of_model))

    def retrace(self, count: int) -> Trace:
        """A trace of the model on another number of rows."""
        try:
            return self.trace(self.rows(count))[1]
        finally:
            self.x, self.given = self.rows(_ROWS)

    def finish(self) -> Programs:
        """What was found, once it was tried."""
        found = Programs(
            self.model,
            self.guide,
            self.state,
            self.of_model,
            self.of_guide,
            plate=self.plate,
            data_sites=self.data_sites,
            observed=self.counted,
            latents=self.kinds,
            summed=self.summed,
            amortized=self.amortized,
            device=self.device,
            dtype=self.dtype,
            template=(self.x, self.given),
        )
        return try_out(found, self.split)


class ProgramError(ValueError):
    """A program that cannot be run on some rows."""


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.get_default_dtype()
