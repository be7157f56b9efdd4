"""How the stored values of a split become what a model observes, wherever they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vae_pyro.data.observation import Draw, Space
from vae_pyro.data.summary import DataSummary

type Words = Callable[[int], Tensor]
# What model and guide are given beside x: ``mask`` and ``y``, where there are such.
type Given = dict[str, Any]


class Observing:
    """Observations of stored values.

    Attributes:
        top: divides the stored values where it is given, so that full intensity is 1.
        draw: ``binarize`` draws Bernoulli(value), ``dequantize`` adds uniform noise of one level, anew at each call.
        space: what log densities of these observations are densities of.
    """

    top: float | None
    draw: Draw
    space: Space

    @property
    def mask(self) -> Tensor | None:
        """Boolean, shape of the data, true where observed; ``None`` where everything is."""
        raise NotImplementedError

    @property
    def y(self) -> Tensor | None:
        """Classes that the programs are given, ``(datum,)`` of int64, -1 where one is unknown; ``None`` gives none."""
        raise NotImplementedError

    def observed(self, x: Tensor, noise: Tensor) -> Tensor:
        """Observations of stored values, with uniform noise in [0, 1) of the same shape where they are random."""
        if self.draw == "dequantize":
            return (x + noise) / (1 if self.top is None else self.top + 1)
        if self.draw == "binarize":
            return (noise * (1 if self.top is None else self.top) < x).to(x.dtype)
        return x if self.top is None else x / self.top

    def observe(self, values: Tensor, *rest: Tensor, dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor], Given]:
        """What `raw` gave, as the arguments of model and guide: ``((x,), {"mask": mask, "y": y})``.

        A pure function of tensors, so that it can be part of a compiled step.
        """
        x, left = values.to(dtype), list(rest)
        noise = x
        if self.draw != "none":
            # The upper 24 bits of a word: every one of the 2^24 uniform numbers is exact in float32.
            noise = ((left.pop(0) >> 8) & 0xFFFFFF).to(dtype) * 2.0**-24
        names = [name for name, value in (("mask", self.mask), ("y", self.y)) if value is not None]
        return (self.observed(x, noise),), dict(zip(names, left, strict=True))

    def _with_words(self, values: Tensor, bits: Words, beside: list[Tensor]) -> tuple[Tensor, ...]:
        words = [bits(values.numel()).view(values.shape).to(values.device)] if self.draw != "none" else []
        return (values, *words, *beside)

    def _summary(self, low: float, high: float, integral: bool, two_levels: bool) -> DataSummary:
        """Of the observations, from what the stored values reach, and whether these are all 0 or `top`."""
        if self.draw == "binarize":
            return DataSummary(0.0, 1.0, True)
        if self.draw == "dequantize":
            top = 1.0 if self.top is None else self.top + 1
            return DataSummary(low / top, (high + 1) / top, False)
        if self.top is None:
            return DataSummary(low, high, integral, 1.0 if integral else None)
        return DataSummary(low / self.top, high / self.top, two_levels, 1 / self.top if integral else None)
