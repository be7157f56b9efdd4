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
from vae_pyro.data.tables.schema import CODED, KINDS, Column, Schema
from vae_pyro.likelihoods.base import BIAS_MARGIN, LIKELIHOODS, Likelihood, Positive, inverse_softplus
from vae_pyro.likelihoods.table_columns import GAP_FLOOR, Columns, Part, cumulative_logits
from vae_pyro.nn.features import masked_moments
from vae_pyro.nn.table_features import TableFeatures

# Log dispersions of counts stay within these bounds; at the upper one a negative binomial is a Poisson to rounding.
_LOG_DISPERSION = 15.0


@LIKELIHOODS.register("table")
class Table(Likelihood):
    """Independent columns, each with the likelihood of its kind, in the units of the table.

    - ``real``: normal (or Student t), location and scale standardised by the training data.
    - ``positive``: log-normal, the logarithm standardised; the density is one of x.
    - ``count``: negative binomial with mean m and variance ``m + m^2 / r`` (or Poisson); the decoder gives log m.
    - ``binary``: Bernoulli, the decoder gives logits.
    - ``ordinal``: cumulative logit, the decoder gives the location and the cutpoints are learned.
    - ``category``: categorical, the decoder gives logits.

    A log density is a sum over columns: of log densities in the units of real and positive columns, and of log
    probabilities of the others. Learned scales are those of `vae_pyro.likelihoods.LocationScale`: a share of the
    training data's standard deviation that never falls below that of rounding, on columns that are rounded.

    The decoder gives one vector: locations of the real, positive and count columns, logits of the binary ones,
    locations of the ordinal ones, logits of the categories, and with ``scale="predicted"`` scales and dispersions.

    Args:
        x_shape: ``(column,)``.
        columns: the schema of the table, see `vae_pyro.data.tables.Schema`; ``vae-pyro fit`` takes it from the data.
        real: family of the real columns.
        count: family of the counts.
        scale: of real and positive columns, and dispersion of counts: ``per_dimension`` is one for each column,
            ``predicted`` one for each cell from the decoder.
        min_scale: lower bound of a scale, as a fraction of the data's standard deviation.
        df: degrees of freedom of the Student t.

    References:
        Nazabal et al. 2020, Handling incomplete heterogeneous data using VAEs, Pattern Recognition 107, sec. 3.
        arXiv:1807.03653
        McCullagh 1980, Regression models for ordinal data, Journal of the Royal Statistical Society B 42.
    """

    wants = "a table with the columns of its schema"
    by_value = True
    reference: Tensor
    floor: Tensor
    count_loc: Tensor
    order: Tensor
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
        min_scale: Positive = 1e-3,
        df: Annotated[float, Field(gt=0)] = 5.0,
    ) -> None:
        super().__init__(x_shape)
        if not columns:
            raise ValueError(
                "likelihood 'table' wants the schema of the table: columns=vae_pyro.data.tables.infer(frame).columns; "
                "or fit a .csv or .parquet file, from which it is inferred"
            )
        self.schema = Schema(columns=columns)
        if self.x_shape != (len(self.schema.columns),):
            raise ValueError(
                f"likelihood 'table' has a schema of {len(self.schema.columns)} columns, the data have x_shape "
                f"{self.x_shape}; encode them with the schema"
            )
        self.real, self.count, self.scale, self.min_scale, self.df = real, count, scale, min_scale, df
        self.discrete = self.schema.discrete
        self.features: TableFeatures = TableFeatures(self.schema)
        self._lay_out()
        start = inverse_softplus(torch.ones(self.num_scaled))
        learned = scale == "per_dimension"
        self.raw_scale = nn.Parameter(start) if learned and self.num_scaled else None
        self.log_dispersion = nn.Parameter(torch.zeros(self.num_dispersed)) if learned and self.num_dispersed else None
        ordinals = self.size["ordinal"]
        self.first_cutpoint = nn.Parameter(torch.zeros(ordinals)) if ordinals else None
        wider = ordinals and int(self.ordinal_classes.max()) > 2
        gaps = torch.ones(ordinals, int(self.ordinal_classes.max()) - 2) if wider else None
        self.raw_gaps = None if gaps is None else nn.Parameter(inverse_softplus(gaps))

    def _lay_out(self) -> None:
        """Where everything stands in the decoder's output and in a row."""
        places = self.features.places
        self.size = {kind: len(places[kind]) for kind in KINDS}
        self.num_scaled = self.size["real"] + self.size["positive"]
        self.num_dispersed = self.size["count"] if self.count == "negative_binomial" else 0
        classes = {kind: [self.schema.columns[k].num_classes for k in places[kind]] for kind in KINDS}
        predicted = self.scale == "predicted"
        self.widths = [
            *(self.size[kind] for kind in ("real", "positive", "count", "binary", "ordinal")),
            sum(classes["category"]),
            self.num_scaled if predicted else 0,
            self.num_dispersed if predicted else 0,
        ]
        self.num_params = -(-sum(self.widths) // len(self.schema.columns))
        for kind, chosen in places.items():
            self.register_buffer(f"{kind}_places", torch.tensor(chosen, dtype=torch.int64), persistent=False)
        grouped = torch.tensor([place for chosen in places.values() for place in chosen])
        self.register_buffer("order", grouped.argsort(), persistent=False)
        self.register_buffer("ordinal_classes", torch.tensor(classes["ordinal"], dtype=torch.int64), persistent=False)
        widest = max(classes["category"], default=0)
        # Logits of each category stand in a row of their own, which is filled up to the widest.
        code = torch.arange(widest).expand(len(classes["category"]), widest)
        many = torch.tensor(classes["category"], dtype=torch.int64).unsqueeze(-1)
        begin = many.cumsum(0) - many
        self.register_buffer("logit_places", torch.where(code < many, begin + code, 0), persistent=False)
        self.register_buffer("logit_absent", code >= many, persistent=False)
        self.register_buffer("reference", torch.ones(self.num_scaled))
        self.register_buffer("floor", torch.full((self.num_scaled,), self.min_scale))
        self.register_buffer("count_loc", torch.zeros(self.size["count"]))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (sum(self.widths),)

    @property
    def fill(self) -> Tensor:  # type: ignore[override]
        """A value in the support of each column, ``(column,)``."""
        return self.features.fill

    @property
    def space(self) -> str:
        """What log densities are densities of, in words."""
        return self.schema.space

    def forward(self, output: Tensor) -> Columns:
        """Decoder output ``(*batch, *output_shape)`` -> distribution with batch shape ``(*batch, column)``."""
        real, positive, count, binary, ordinal, category, raw_scale, log_dispersion = output.split(self.widths, -1)
        loc_of, sd_of = (held.split(self.features.sizes[:3]) for held in (self.features.loc, self.features.scale))
        raw = raw_scale if self.raw_scale is None else self.raw_scale
        scale = self.reference * (self.floor + softplus(raw))
        real_scale, positive_scale = scale.split([self.size["real"], self.size["positive"]], -1)
        dispersion = log_dispersion if self.log_dispersion is None else self.log_dispersion
        made: dict[str, Callable[[], TorchDistribution]] = {
            "real": lambda: self._real(loc_of[0] + sd_of[0] * real, real_scale),
            "positive": lambda: dist.LogNormal(loc_of[1] + sd_of[1] * positive, positive_scale),
            "count": lambda: self._count(self.count_loc + sd_of[2] * count, dispersion),
            "binary": lambda: dist.Bernoulli(logits=binary),
            "ordinal": lambda: dist.Categorical(
                logits=cumulative_logits(ordinal, self.cutpoints(), self.ordinal_classes)
            ),
            "category": lambda: dist.Categorical(logits=self._logits(category)),
        }
        parts = [
            Part(getattr(self, f"{kind}_places"), make(), double=kind == "count")
            for kind, make in made.items()
            if self.size[kind]
        ]
        return Columns(parts, self.order, output.dtype)

    def _real(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        if self.real == "normal":
            return dist.Normal(loc, scale)
        return dist.StudentT(torch.as_tensor(self.df, dtype=loc.dtype, device=loc.device), loc, scale)

    def _count(self, log_rate: Tensor, log_dispersion: Tensor) -> TorchDistribution:
        if self.count == "poisson":
            return dist.Poisson(log_rate.double().exp())
        held = log_dispersion.double().clamp(-_LOG_DISPERSION, _LOG_DISPERSION)
        log_rate, held = torch.broadcast_tensors(log_rate.double(), held)
        return dist.NegativeBinomial(held.exp(), logits=log_rate - held)

    def _logits(self, category: Tensor) -> Tensor:
        placed = category.index_select(-1, self.logit_places.flatten())
        filled = placed.reshape(*category.shape[:-1], *self.logit_places.shape)
        return filled.masked_fill(self.logit_absent, -torch.inf)

    def cutpoints(self) -> Tensor:
        """Cutpoints of the ordinal columns, rising, ``(ordinal, most classes - 1)``."""
        assert self.first_cutpoint is not None
        first = self.first_cutpoint.unsqueeze(-1)
        if self.raw_gaps is None:
            return first
        return torch.cat([first, first + (softplus(self.raw_gaps) + GAP_FLOOR).cumsum(-1)], -1)

    @staticmethod
    def accepts(summary: DataSummary) -> bool:
        return False  # it is not offered for data of which nothing but the range is known: it wants a schema

    def holds(self, summary: DataSummary) -> bool:
        return True  # no range says it: `refuse` looks at each value

    @torch.no_grad()
    def initialize(self, x: Tensor, observed: Tensor, step: float | None = None) -> Tensor:
        """Start at the marginals of the training data: whatever z is, each column has its mean, spread and shares.

        Raises:
            ValueError: a value that its column cannot hold; the message names column, row and value.
        """
        self.refuse(x, observed)
        self.features.fit(x, observed)
        bias = [torch.zeros(width, dtype=torch.float64, device=x.device) for width in self.widths]
        self._start_scales(bias)
        self._start_counts(x, observed, bias)
        mean, _ = masked_moments(x[:, self.binary_places], observed[:, self.binary_places], [0])
        bias[3] = torch.logit(mean, eps=BIAS_MARGIN)
        shares = [self._shares(x, observed, place).log() for place in self.features.places["category"]]
        bias[5] = torch.cat(shares) if shares else bias[5]
        self._start_cutpoints(x, observed)
        return torch.cat(bias).to(x.dtype)

    def _start_scales(self, bias: list[Tensor]) -> None:
        if not self.num_scaled:
            return
        loc, sd = self.features.loc[: self.num_scaled].double(), self.features.scale[: self.num_scaled]
        self.reference.copy_(sd)
        places = [*self.features.places["real"], *self.features.places["positive"]]
        rounding = sd.new_tensor([self.schema.columns[k].step or 0.0 for k in places]).double() / 12**0.5
        rounding[self.size["real"] :] /= loc[self.size["real"] :].exp()  # the step of a logarithm is relative
        self.floor.copy_((rounding / sd.double()).clamp(min=self.min_scale))
        start = torch.ones_like(rounding)
        if self.real == "student_t" and self.df > 2:
            start[: self.size["real"]] *= ((self.df - 2) / self.df) ** 0.5  # the variance of a t is df / (df - 2)
        raw = inverse_softplus((start - self.floor.double()).clamp(min=BIAS_MARGIN))
        if self.raw_scale is None:
            bias[6] = raw
        else:
            self.raw_scale.copy_(raw)

    def _start_counts(self, x: Tensor, observed: Tensor, bias: list[Tensor]) -> None:
        if not self.size["count"]:
            return
        mean, variance = masked_moments(x[:, self.count_places], observed[:, self.count_places], [0])
        mean = mean.clamp(min=BIAS_MARGIN)
        self.count_loc.copy_(mean.log())
        # The moments of a negative binomial: variance = m + m^2 / r. Between bounds, from which r can still move.
        dispersion = (mean**2 / (variance - mean).clamp(min=1e-8)).clamp(0.05, 100).log()
        if self.log_dispersion is not None:
            self.log_dispersion.copy_(dispersion)
        elif self.num_dispersed:
            bias[7] = dispersion

    def _start_cutpoints(self, x: Tensor, observed: Tensor) -> None:
        for number, place in enumerate(self.features.places["ordinal"]):
            assert self.first_cutpoint is not None
            cut = torch.logit(self._shares(x, observed, place).cumsum(0)[:-1])
            self.first_cutpoint[number] = cut[0]
            if self.raw_gaps is not None and len(cut) > 1:
                gaps = (cut.diff() - GAP_FLOOR).clamp(min=GAP_FLOOR)
                self.raw_gaps[number, : len(gaps)] = inverse_softplus(gaps).to(self.raw_gaps.dtype)

    def _shares(self, x: Tensor, observed: Tensor, place: int) -> Tensor:
        """Shares of the categories of one column, by Laplace's rule, which keeps unseen ones possible."""
        codes = x[observed[:, place], place].long()
        classes = self.schema.columns[place].num_classes
        seen = torch.bincount(codes, minlength=classes).double() + 1
        return seen / seen.sum()

    def refuse(self, x: Tensor, observed: Tensor) -> None:
        for place, column in enumerate(self.schema.columns):
            cells = x[:, place]
            whole = cells == cells.round()
            inside = {
                "positive": cells > 0,
                "count": (cells >= 0) & whole,
                **dict.fromkeys(CODED, (cells >= 0) & (cells < column.num_classes) & whole),
            }.get(column.kind, torch.ones_like(whole))
            wrong = observed[:, place] & ~(inside & cells.isfinite())
            if wrong.any():
                row = int(wrong.nonzero()[0])
                raise ValueError(
                    f"column {column.name!r} is {column.kind} ({column.extent}), and cannot hold {cells[row].item():g} "
                    f"in row {row}; encode the table with Schema.encode, or mask the cell"
                )

    def expectation(self, distribution: TorchDistribution) -> Tensor:
        """E[x | z] of numbers, P(second category | z) of binary columns, the most probable code of the others."""
        mean: Any = distribution.mean
        return mean
