"""What a compressed data set costs, beside what the ELBO promises and what general compressors take."""

from dataclasses import dataclass
from math import log, prod, sqrt
from typing import Any

import numpy as np
import torch

from vae_pyro.applications.compression.archive import Archive, CodeLength
from vae_pyro.applications.compression.codec import data_digest
from vae_pyro.applications.compression.rivals import rival_sizes
from vae_pyro.data.split import Split
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.models.vae import VAE


@dataclass(frozen=True)
class Rates:
    """Bits per dimension: bits over all elements of all data.

    Attributes:
        elbo: minus the ELBO, what bits-back coding takes on average.
        elbo_se: its Monte Carlo standard error.
        draw_se: standard error of a code length around it, for other bits that latents are drawn from: each datum is
            coded through a single draw.
        length: what the archive takes.
        rivals: bits that other compressors take for the same data, by name.
    """

    elbo: float
    elbo_se: float
    draw_se: float
    length: CodeLength
    rivals: dict[str, int]

    @property
    def excess(self) -> float:
        """Net rate over minus the ELBO, minus one."""
        return self.length.net / self.elbo - 1

    def rows(self) -> list[tuple[str, float]]:
        """Names, and bits per dimension."""
        length = self.length
        own = [
            ("minus ELBO", self.elbo),
            ("bits-back, net", length.net),
            (f"bits-back, with {length.initial:,} bits lent to the first datum", length.gross),
            ("the file, with header and checksum", length.whole),
        ]
        return own + [(name, length.per_dimension(bits)) for name, bits in self.rivals.items()]

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, bits per dimension where nothing else is said."""
        length = self.length
        return {
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "draw_se": self.draw_se,
            "net": length.net,
            "gross": length.gross,
            "file": length.whole,
            "initial_bits": length.initial,
            "file_bytes": length.file // 8,
            "n": length.num_data,
            "num_elements": length.num_elements,
            **{name: length.per_dimension(bits) for name, bits in self.rivals.items()},
        }

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{width}}  {rate:.4f}" for name, rate in self.rows())


def rates(vae: VAE, split: Split, archive: Archive, *, num_draws: int = 100, seed: int = 0) -> Rates:
    """The rates of an archive of complete data with fixed observations.

    Args:
        vae: that wrote it.
        split: what was compressed.
        archive: of it.
        num_draws: draws for each datum, at least 2, of the ELBO.
        seed: of the draws.

    Raises:
        ValueError: the archive is of other data than ``split``.
    """
    header = archive.header
    if (len(split), split.x_shape) != (header.num_data, header.x_shape):
        raise ValueError(
            f"the archive is of other data: {header.num_data:,} of shape {header.x_shape}, the split has "
            f"{len(split):,} of shape {split.x_shape}"
        )
    if not np.array_equal(split.ids.cpu().numpy(), archive.ids):
        raise ValueError("the archive is of other data: its row numbers are not those of the split")
    x, _ = split.batch(slice(None), torch.float64)
    integers = x.round().to(torch.int64).cpu().numpy()
    if data_digest(integers.__getitem__, len(integers), header.block) != header.data:
        raise ValueError(
            "the archive is of other data: its values are not those of the split; where observations are random, give "
            "the split as it was compressed, after split.fixed"
        )
    found = evaluate(vae, split, num_draws=num_draws, seed=seed)
    to_bits = 1 / (log(2) * len(split) * prod(split.x_shape))
    variance = float((found.elbo_se**2).sum())
    return Rates(
        elbo=-float(found.elbo.sum()) * to_bits,
        elbo_se=sqrt(variance) * to_bits,
        draw_se=sqrt(variance * num_draws) * to_bits,
        length=archive.length,
        rivals=rival_sizes(integers),
    )
