"""Code lengths beside the ELBO."""

import numpy as np
import pytest
import torch

from tests.vae_pyro.applications.compression.models import tiny
from vae_pyro import VAE, Dataset, Split
from vae_pyro.applications.compression.archive import Archive
from vae_pyro.applications.compression.codec import compress
from vae_pyro.applications.compression.rates import compression_rates


def test_rates_of_other_data_are_refused() -> None:
    vae = tiny()
    x = np.random.default_rng(0).integers(0, 2, (20, 4))
    made = compress(vae, x)
    compression_rates(vae, Split(torch.from_numpy(x)), made, num_draws=2)
    other = x.copy()
    other[3, 2] ^= 1
    for split, message in (
        (Split(torch.from_numpy(x[:10])), r"20 of shape \(4,\), the split has 10"),
        (Split(torch.from_numpy(x.reshape(20, 2, 2))), r"the split has 20 of shape \(2, 2\)"),
        (Split(torch.from_numpy(x), ids=torch.arange(20) + 1), "row numbers are not those"),
        (Split(torch.from_numpy(other)), "values are not those of the split"),
    ):
        with pytest.raises(ValueError, match=f"the archive is of other data.*{message}"):
            compression_rates(vae, split, made, num_draws=2)


def test_digits_cost_minus_the_elbo_to_one_percent(fitted: VAE, digits: Dataset, archive: Archive) -> None:
    found = compression_rates(fitted, digits.test, archive, num_draws=200, seed=3)
    assert abs(found.excess) < 0.01
    # 4.4 standard errors and two words.
    tolerance = 4.4 * np.hypot(found.draw_se, found.elbo_se) + found.length.per_dimension(64)
    assert abs(found.length.net - found.elbo) < tolerance + 2e-4 * found.elbo
    assert found.length.net < found.length.gross < found.length.whole
    # Only the first datum reads initial bits: their number does not grow with the data.
    assert found.length.initial <= 32 * (2 + 6 * 40 // 32 + 1)
    names = [name for name, _ in found.rows()]
    assert names[-4:] == ["gzip", "bz2", "lzma", "PNG"]
    assert found.summary()["net"] == found.length.net
    assert f"{found.elbo:.4f}" in str(found)
    assert f"<td>{found.elbo:.4f}</td>" in found._repr_html_()
