"""What splits in memory have in common."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from vae_pyro.data.observation import GIVEN, Draw, Space
from vae_pyro.data.split import Index, Split, Words

_UNNUMBERED = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False, repr=False)
class HeldSplit(Split):
    """Data of one split in memory.

    Attributes:
        values: as stored, ``(datum, *x_shape)``, whatever holds them.
        labels: ``(datum,)``, or ``None``.
        ids: row of each datum in its source, ``(datum,)``; numbered from 0 where none are given.
        mask: boolean, shape of ``values``, true where observed; ``None`` where everything is.
        top: see `Split`; likewise ``draw`` and ``space``.
        y: see `Split`.
    """

    values: Any
    labels: Tensor | None = None
    ids: Tensor = _UNNUMBERED
    mask: Tensor | None = None
    top: float | None = None
    draw: Draw = "none"
    space: Space = GIVEN
    y: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", Space(self.space))
        if self.ids.numel() == 0:
            object.__setattr__(self, "ids", torch.arange(len(self.values)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.values.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.values.device
        return device

    def stored(self, index: Index) -> Tensor:
        rows: Tensor = self.values[index]
        return rows

    def raw(self, index: Tensor, bits: Words) -> tuple[Tensor, ...]:
        beside = [value.index_select(0, index) for value in (self.mask, self.y) if value is not None]
        return self._with_words(self.values.index_select(0, index), bits, beside)

    def beside(self, index: Index) -> dict[str, Tensor]:
        """Labels, numbers, mask and classes of some data, as far as there are such."""
        parts = {name: getattr(self, name) for name in ("labels", "ids", "mask", "y")}
        held = {name: value for name, value in parts.items() if value is not None}
        if isinstance(index, slice):
            return {name: value[index] for name, value in held.items()}
        # Some parts stay in the host's memory (ids), wherever the values are.
        return {name: value[index.to(value.device)] for name, value in held.items()}

    def to(self, device: torch.device) -> Self:
        move = {name: getattr(self, name) for name in ("values", "labels", "mask", "y")}
        return replace(self, **{name: value.to(device) for name, value in move.items() if value is not None})

    def replace(self, **changes: Any) -> Self:
        """See `Split.replace`; takes every attribute."""
        return replace(self, **changes)

    def _where(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
