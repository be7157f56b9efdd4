"""Rows of a table whose columns are of different kinds, each with its own likelihood."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_pyro.data.summary import DataSummary
from vae_pyro.data.tables.schema import CONTINUOUS, Column, Schema
from vae_pyro.densities.measure import Measure
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, DataForm, Likelihood, Positive, inverse_softplus
from vae_pyro.likelihoods.margin_cells import MarginCells
from vae_pyro.likelihoods.table_columns import (
    GAP_FLOOR,
    Columns,
    Part,
    category_logits,
    count_cells,
    cumulative_logits,
    real_cells,
)
from vae_pyro.likelihoods.table_layout import TableLayout
from vae_pyro.likelihoods.table_start import count_moments, cutpoint_start, refuse_cells, rounding_floors, shares_of
from vae_pyro.nn.features import masked_moments
from vae_pyro.nn.table_features import TableFeatures


@LIKELIHOODS.register("table", order=14)
class Table(Likelihood):
    """Independent columns, each with the likelihood of its kind, in the units of the table.

    - ``real``: normal (or Student t), location and scale standardised by the training data.
    - ``positive``: log-normal, the logarithm standardised; the density is one of x.
    - ``count``: negative binomial with mean m and variance ``m + m^2 / r`` (or Poisson); the decoder gives log m.
    - ``binary``: Bernoulli, the decoder gives logits.
    - ``ordinal``: cumulative logit, the decoder gives the location and the cutpoints are learned.
    - ``category``: categorical, the decoder gives logits.

    A log density is a sum over columns: of log densities in the units of real and positive columns, and of log
    probabilities of the others. Learned scales are those of `vae_pyro.likelihoods.location_scale.LocationScale`: a
    share of the training data's standard deviation that never falls below that of rounding, on rounded columns.

    The decoder gives one vector, see `vae_pyro.likelihoods.table_layout.TableLayout`.

    Args:
        x_shape: ``(column,)``.
        columns: the schema of the table, see `vae_pyro.Schema`; ``vae-pyro fit`` takes it from the data.
        real: family of the real columns.
        count: family of the counts.
        scale: of real and positive columns, and dispersion of counts: ``per_dimension`` is one for each column,
            ``predicted`` one for each cell from the decoder.
        min_scale: lower bound of a scale, as a fraction of the data's standard deviation.
        df: degrees of freedom of the Student t.
        margins: of real and positive columns. ``fitted`` takes the distribution of each column from the training data,
            as it is (skew, several modes, rounding, values that repeat), and describes its normal scores by a location
            and a scale, see `vae_pyro.likelihoods.margin_cells.MarginCells`.

    References:
        Nazabal et al. 2020, Handling incomplete heterogeneous data using VAEs, Pattern Recognition 107, sec. 3.
        arXiv:1807.03653
        McCullagh 1980, Regression models for ordinal data, Journal of the Royal Statistical Society B 42.
    """

    support = "a table with the columns of its schema"
    by_value = True
    needs_schema = True
    default_for = DataForm.MIXED
    schema: Schema
    reference: Tensor
    floor: Tensor
    count_loc: Tensor
    order: Tensor
    real_places: Tensor
    positive_places: Tensor
    binary_places: Tensor
    count_places: Tensor
    ordinal_classes: Tensor
    logit_places: Tensor
    logit_absent: Tensor

    def __init__(
        self,
        x_shape: Sequence[int],
        *,
        columns: tuple[Column, ...] = (),
        real: Literal["normal", "student_t"] = "normal",
        count: Literal["negative_binomial", "poisson"] = "negative_binomial",
        scale: Literal["per_dimension", "predicted"] = "per_dimension",
        margins: Literal["none", "fitted"] = "none",
        min_scale: Positive = 1e-3,
        df: Annotated[float, Field(gt=0)] = 5.0,
    ) -> None:
        super().__init__(x_shape)
        if not columns:
            raise ValueError(
                "likelihood 'table' requires the schema of the table: columns=vae_pyro.data.tables.infer(frame)"
                ".columns; or fit a .csv or .parquet file, from which it is inferred"
            )
        self.schema = Schema(columns=columns)
        if self.x_shape != (len(self.schema.columns),):
            raise ValueError(
                f"likelihood 'table' has a schema of {len(self.schema.columns)} columns, the data have x_shape "
                f"{self.x_shape}; encode them with the schema"
            )
        if margins != "none" and real != "normal":
            raise ValueError(f"margins={margins!r} describes scores that are normal; leave out real={real!r}")
        self.real, self.count, self.scale, self.min_scale, self.df = real, count, scale, min_scale, df
        self.discrete = self.schema.discrete
        self.features: TableFeatures = TableFeatures(self.schema, margins=margins == "fitted")
        self.layout = TableLayout(self.schema, count == "negative_binomial", scale == "predicted")
        self.size, self.widths = self.layout.size, self.layout.widths
        self.num_params = -(-sum(self.widths) // len(self.schema.columns))
        self._register_places()
        num_scaled, num_dispersed, ordinals = self.layout.num_scaled, self.layout.num_dispersed, self.size["ordinal"]
        self.register_buffer("reference", torch.ones(num_scaled))
        self.register_buffer("floor", torch.full((num_scaled,), min_scale))
        self.register_buffer("count_loc", torch.zeros(self.size["count"]))
        learned = scale == "per_dimension"
        self.raw_scale = nn.Parameter(inverse_softplus(torch.ones(num_scaled))) if learned and num_scaled else None
        self.log_dispersion = nn.Parameter(torch.zeros(num_dispersed)) if learned and num_dispersed else None
        self.first_cutpoint = nn.Parameter(torch.zeros(ordinals)) if ordinals else None
        gaps = max(self.layout.classes("ordinal"), default=2) - 2
        self.raw_gaps = nn.Parameter(inverse_softplus(torch.ones(ordinals, gaps))) if gaps else None

    def _register_places(self) -> None:
        """Positions as buffers that follow the device and are not stored."""
        for kind, chosen in self.layout.places.items():
            self.register_buffer(f"{kind}_places", torch.tensor(chosen, dtype=torch.int64), persistent=False)
        classes = torch.tensor(self.layout.classes("ordinal"), dtype=torch.int64)
        logit_places, logit_absent = self.layout.logit_places()
        self.register_buffer("order", self.layout.order, persistent=False)
        self.register_buffer("ordinal_classes", classes, persistent=False)
        self.register_buffer("logit_places", logit_places, persistent=False)
        self.register_buffer("logit_absent", logit_absent, persistent=False)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (sum(self.widths),)

    @property
    def fill(self) -> Tensor:  # type: ignore[override]
        """A value in the support of each column, ``(column,)``."""
        return self.features.fill

    @property
    def space(self) -> str:
        """The space of the log densities, in words."""
        return self.schema.space

    @property
    def measure(self) -> Measure:
        margins = self.features.margins
        masses = margins is not None and bool(margins.masses.any())
        return Measure.DENSITY_AND_MASSES if masses else super().measure

    @property
    def elementwise(self) -> bool:
        return False  # columns are of several kinds

    def forward(self, output: Tensor) -> Columns:
        """Decoder output ``(*batch, *output_shape)`` -> distribution with batch shape ``(*batch, column)``."""
        real, positive, count, binary, ordinal, category, raw_scale, log_dispersion = output.split(self.widths, -1)
        loc_of, sd_of = (held.split(self.features.sizes[:3]) for held in (self.features.loc, self.features.scale))
        raw = raw_scale if self.raw_scale is None else self.raw_scale
        scale = self.reference * (self.floor + softplus(raw))
        real_scale, positive_scale = scale.split([self.size["real"], self.size["positive"]], -1)
        dispersion = log_dispersion if self.log_dispersion is None else self.log_dispersion
        margins = self.features.margins
        if margins is not None:
            scores = MarginCells(torch.cat([real, positive], -1), scale, margins)
        made: dict[str, Callable[[], TorchDistribution]] = {
            "real": lambda: real_cells(self.real, loc_of[0] + sd_of[0] * real, real_scale, self.df),
            "positive": lambda: dist.LogNormal(loc_of[1] + sd_of[1] * positive, positive_scale),
            "count": lambda: count_cells(self.count, self.count_loc + sd_of[2] * count, dispersion),
            "binary": lambda: dist.Bernoulli(logits=binary),
            "ordinal": lambda: dist.Categorical(
                logits=cumulative_logits(ordinal, self.cutpoints(), self.ordinal_classes)
            ),
            "category": lambda: dist.Categorical(
                logits=category_logits(category, self.logit_places, self.logit_absent)
            ),
        }
        parts = [
            Part(getattr(self, f"{kind}_places"), make(), double=kind == "count")
            for kind, make in made.items()
            if self.size[kind] and not (margins is not None and kind in CONTINUOUS)
        ]
        if margins is not None:
            parts.insert(0, Part(torch.cat([self.real_places, self.positive_places]), scores))
        return Columns(parts, self.order, output.dtype)

    def cutpoints(self) -> Tensor:
        """Cutpoints of the ordinal columns, rising, ``(ordinal, most classes - 1)``."""
        assert self.first_cutpoint is not None
        first = self.first_cutpoint.unsqueeze(-1)
        if self.raw_gaps is None:
            return first
        return torch.cat([first, first + (softplus(self.raw_gaps) + GAP_FLOOR).cumsum(-1)], -1)

    @staticmethod
    def settings(num_columns: int, num_rows: int, num_epochs: int) -> dict[str, dict[str, Any]]:
        """Margins, predicted scales, a prior that fits the aggregate posterior, and networks that grow with the data.

        As many latents as columns, at most 10; a component of the prior for each 100 rows, from 30 to 50; hidden layers
        of 64 units, 128 from 1,000 and 256 from 5,000 rows on; batches of a twentieth of the rows, from 16 to 128;
        and a tenth of the epochs as warm-up of the KL, without which latents collapse and columns come apart.
        """
        width = 64 if num_rows < 1000 else 128 if num_rows < 5000 else 256
        return {
            "model": {
                "likelihood": {"name": "table", "margins": "fitted", "scale": "predicted"},
                "prior": {"name": "mixture", "components": min(max(num_rows // 100, 30), 50)},
                "latent_dim": min(max(num_columns, 2), 10),
                "encoder": {"name": "mlp", "hidden": [width, width]},
            },
            "fit": {
                "optimizer": {"name": "adam", "lr": 5e-3},
                "schedule": "cosine",
                "kl_warmup": 0.1 * num_epochs,
                "batch_size": min(max(num_rows // 20, 16), 128),
            },
        }

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return False  # a range alone does not make a schema, without which the likelihood cannot be offered

    def holds(self, summary: DataSummary) -> bool:
        return True  # `refuse` checks each value

    @torch.no_grad()
    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        """Start at the marginals of the training data: whatever z is, each column has its mean, spread and shares.

        Raises:
            ValueError: a value that its column cannot hold; the message names column, row and value.
        """
        self.refuse(x, observed)
        self.features.fit(x, observed)
        bias = [torch.zeros(width, dtype=torch.float64, device=x.device) for width in self.widths]
        if self.layout.num_scaled:
            self._start_scales(bias)
        if self.size["count"]:
            self._start_counts(x, observed, bias)
        mean, _ = masked_moments(x[:, self.binary_places], observed[:, self.binary_places], [0])
        bias[3] = torch.logit(mean, eps=BIAS_MARGIN)
        shares = {
            place: shares_of(x, observed, place, self.schema.columns[place].num_classes)
            for kind in ("category", "ordinal")
            for place in self.layout.places[kind]
        }
        if self.size["category"]:
            bias[5] = torch.cat([shares[place].log() for place in self.layout.places["category"]])
        for number, place in enumerate(self.layout.places["ordinal"]):
            assert self.first_cutpoint is not None
            self.first_cutpoint[number], gaps = cutpoint_start(shares[place])
            if self.raw_gaps is not None and len(gaps):
                self.raw_gaps[number, : len(gaps)] = gaps.to(self.raw_gaps.dtype)
        return torch.cat(bias).to(x.dtype)

    def _start_scales(self, bias: list[Tensor]) -> None:
        num_real, num_scaled = self.size["real"], self.layout.num_scaled
        if self.features.margins is not None:  # scores have their own scale
            raw = inverse_softplus(torch.full((num_scaled,), 1 - self.min_scale, dtype=torch.float64))
            if self.raw_scale is None:
                bias[6] = raw.to(bias[6].device)
            else:
                self.raw_scale.copy_(raw)
            return
        loc, sd = self.features.loc[:num_scaled].double(), self.features.scale[:num_scaled]
        places = [*self.layout.places["real"], *self.layout.places["positive"]]
        typical = torch.ones_like(loc)
        typical[num_real:] = loc[num_real:].exp()  # the step of a logarithm is relative
        self.reference.copy_(sd)
        self.floor.copy_(rounding_floors([self.schema.columns[k] for k in places], sd, typical, self.min_scale))
        start = torch.ones_like(loc)
        if self.real == "student_t" and self.df > 2:
            start[:num_real] *= ((self.df - 2) / self.df) ** 0.5  # the variance of a t is df / (df - 2)
        raw = inverse_softplus((start - self.floor.double()).clamp(min=BIAS_MARGIN))
        if self.raw_scale is None:
            bias[6] = raw
        else:
            self.raw_scale.copy_(raw)

    def _start_counts(self, x: Tensor, observed: Tensor, bias: list[Tensor]) -> None:
        log_mean, log_dispersion = count_moments(x[:, self.count_places], observed[:, self.count_places])
        self.count_loc.copy_(log_mean)
        if self.log_dispersion is not None:
            self.log_dispersion.copy_(log_dispersion)
        elif self.layout.num_dispersed:
            bias[7] = log_dispersion

    def refuse(self, x: Tensor, observed: Tensor) -> None:
        refuse_cells(self.schema, x, observed)

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        """E[x | z] of numbers, P(second category | z) of binary columns, the most probable code of the others."""
        mean: Any = distribution.mean
        return mean
