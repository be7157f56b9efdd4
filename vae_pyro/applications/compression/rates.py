"""Bits per dimension of a compressed data set, compared with the ELBO and with general-purpose compressors."""

from dataclasses import dataclass
from math import log, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vae_pyro.applications.compression.archive import Archive, CodeLength
from vae_pyro.applications.compression.codec import data_digest
from vae_pyro.applications.compression.general_compressors import compressed_sizes
from vae_pyro.data.split import Split
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.models.vae import VAE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CompressionRates:
    """Code lengths in bits per dimension: bits divided by the number of elements of all data.

    Attributes:
        elbo: minus the ELBO, the expected length of bits-back coding.
        elbo_se: its Monte Carlo standard error.
        draw_se: standard deviation of a code length around it, since each datum is coded with a single draw of its
            latents.
        length: code length of the archive.
        general: size in bits of the same data under general-purpose compressors, by name.
    """

    elbo: float
    elbo_se: float
    draw_se: float
    length: CodeLength
    general: dict[str, int]

    @property
    def excess(self) -> float:
        """Relative excess of the net rate over minus the ELBO."""
        return self.length.net / self.elbo - 1

    def rows(self) -> list[tuple[str, float]]:
        """Codes with their bits per dimension."""
        length = self.length
        own = [
            ("minus ELBO", self.elbo),
            ("bits-back, net", length.net),
            (f"bits-back, with {length.initial:,} initial bits", length.gross),
            ("the file, with header and checksum", length.whole),
        ]
        return own + [(name, length.per_dimension(bits)) for name, bits in self.general.items()]

    def summary(self) -> dict[str, Any]:
        """JSON-able; bits per dimension unless the name says otherwise."""
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
            **{name: length.per_dimension(bits) for name, bits in self.general.items()},
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each code: bits per dimension."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["code", "bits_per_dimension"]).set_index("code")

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{width}}  {rate:.4f}" for name, rate in self.rows())

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(float_format="{:.4f}".format))


def compression_rates(
    vae: VAE, split: Split, archive: Archive, *, num_draws: int = 100, seed: int = 0
) -> CompressionRates:
    """The rates of an archive of complete data with fixed observations.

    Args:
        vae: the VAE that the archive was written with.
        split: the data that were compressed.
        archive: of these data.
        num_draws: draws for each datum of the ELBO, at least 2.
        seed: seed of the draws.

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
            "the archive is of other data: its values are not those of the split; where observations are random, pass "
            "the split as it was compressed, after split.fixed"
        )
    found = evaluate(vae, split, num_draws=num_draws, seed=seed)
    to_bits = 1 / (log(2) * len(split) * prod(split.x_shape))
    variance = float((found.elbo_se**2).sum())
    return CompressionRates(
        elbo=-float(found.elbo.sum()) * to_bits,
        elbo_se=sqrt(variance) * to_bits,
        draw_se=sqrt(variance * num_draws) * to_bits,
        length=archive.length,
        general=compressed_sizes(integers),
    )
