"""Initial values of the likelihood of a table: the marginals of the training data, column by column."""

import torch
from torch import Tensor

from vae_pyro.data.tables.schema import CODED, Column, Schema
from vae_pyro.likelihoods.base import BIAS_MARGIN, inverse_softplus
from vae_pyro.likelihoods.table_columns import GAP_FLOOR
from vae_pyro.nn.features import masked_moments

# Bounds of the dispersions that counts start with, from which they can still move.
_LEAST_DISPERSION, _GREATEST_DISPERSION = 0.05, 100.0


def shares_of(x: Tensor, observed: Tensor, place: int, num_classes: int) -> Tensor:
    """Shares of the categories of one column, by Laplace's rule, which keeps unseen ones possible.

    Args:
        x: ``(datum, column)``.
        observed: boolean, shape of ``x``.
        place: of the column.
        num_classes: of the column.

    Returns:
        Shape ``(category,)``, float64; they sum to one.
    """
    codes = x[observed[:, place], place].long()
    seen = torch.bincount(codes, minlength=num_classes).double() + 1
    return seen / seen.sum()


def rounding_floors(columns: list[Column], sd: Tensor, typical: Tensor, min_scale: float) -> Tensor:
    """Lower bounds of learned scales, in units of ``sd``: the standard deviation of rounding, and ``min_scale``.

    Args:
        columns: that have a scale.
        sd: standard deviation of each on the scale on which it is modelled, ``(column,)``.
        typical: values that the spacing is relative to, 1 where it is absolute, float64, ``(column,)``.
        min_scale: the least.

    Returns:
        Shape ``(column,)``, float64.
    """
    rounding = sd.new_tensor([column.step or 0.0 for column in columns]).double() / 12**0.5
    return (rounding / typical / sd.double()).clamp(min=min_scale)


def count_moments(x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Log mean and log dispersion r of counts, from the moments of a negative binomial: variance = m + m^2 / r.

    Args:
        x: ``(datum, column)`` of counts.
        observed: boolean, shape of ``x``.

    Returns:
        Each ``(column,)``, float64; the dispersion within bounds from which it can still move.
    """
    mean, variance = masked_moments(x, observed, [0])
    mean = mean.clamp(min=BIAS_MARGIN)
    dispersion = mean**2 / (variance - mean).clamp(min=1e-8)
    return mean.log(), dispersion.clamp(_LEAST_DISPERSION, _GREATEST_DISPERSION).log()


def cutpoint_start(shares: Tensor) -> tuple[Tensor, Tensor]:
    """First cutpoint and raw gaps between cutpoints at which an ordinal column has these shares at location 0.

    Args:
        shares: of its categories, ``(category,)``.

    Returns:
        The first cutpoint, 0-d, and the inverse softplus of the gaps to the others, ``(category - 2,)``.
    """
    cut = torch.logit(shares.cumsum(0)[:-1])
    return cut[0], inverse_softplus((cut.diff() - GAP_FLOOR).clamp(min=GAP_FLOOR))


def refuse_cells(schema: Schema, x: Tensor, observed: Tensor) -> None:
    """Refuse values that their column cannot hold.

    Args:
        schema: of the columns.
        x: ``(datum, column)``.
        observed: boolean, shape of ``x``.

    Raises:
        ValueError: the message names column, row and value.
    """
    for place, column in enumerate(schema.columns):
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
