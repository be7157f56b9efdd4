"""Splits in memory: block by block as if at once."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.data.makers import random_bytes
from vae_pyro import Split, load_data
from vae_pyro.data.split import fingerprint


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_a_sample_of_a_split() -> None:
    data = digits()
    sample = data.train.sample(100, seed=1)
    assert len(set(sample.ids.tolist())) == 100
    order = torch.randperm(1294, generator=torch.Generator().manual_seed(1))[:100]
    assert torch.equal(sample.ids, data.train.ids[order])
    assert len(data.train.sample(5000, seed=1)) == 1294
    assert torch.equal(data.train.head, data.train.values[:1])


@pytest.mark.usefixtures("odd_blocks")
def test_draws_and_fingerprints_are_those_of_all_data_at_once() -> None:
    x = random_bytes(50, 3, 5)
    noise = np.random.default_rng(7).random(x.shape, dtype=np.float32)
    binary = Split(torch.from_numpy(x), top=255.0, draw="binarize").fixed(7)
    np.testing.assert_array_equal(
        binary.values.numpy(), (noise * np.float32(255) < x.astype(np.float32)).view(np.uint8)
    )
    assert binary.values.dtype == torch.uint8
    noisy = Split(torch.from_numpy(x), top=255.0, draw="dequantize").fixed(7)
    np.testing.assert_array_equal(noisy.values.numpy(), (x.astype(np.float32) + noise) / np.float32(256))
    assert len(binary.take(slice(0)).fixed(7)) == 0
    mask = x > 20
    masked = Split(torch.from_numpy(x), mask=torch.from_numpy(mask))
    lying = Split(torch.from_numpy(x).transpose(1, 2))  # not contiguous
    fed = [b"|", x.tobytes(), b"|", mask.tobytes(), b"|", x.transpose(0, 2, 1).tobytes(), b"|"]
    assert fingerprint(masked, lying) == hashlib.sha256(b"".join(fed)).hexdigest()


@pytest.mark.usefixtures("odd_blocks")
def test_a_summary_sees_the_first_and_the_last_datum() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(2, 9, (50, 3, 5))).float()
    plain = Split(x).summary()
    assert (plain.low, plain.high, plain.integral, plain.step) == (2.0, 8.0, True, 1.0)
    two = Split(255.0 * (x > 4), top=255.0)
    assert two.summary().integral
    for row in (0, 49):
        for value, changed in ((-1.0, (-1.0, 8.0, True)), (11.5, (2.0, 11.5, False))):
            other = x.clone()
            other[row, 2, 4] = value
            found = Split(other).summary()
            assert (found.low, found.high, found.integral) == changed
            hidden = Split(other, mask=other != value).summary()
            assert (hidden.low, hidden.high, hidden.integral) == (2.0, 8.0, True)
        level = two.values.clone()
        level[row, 0, 0] = 7.0
        assert not replace(two, values=level).summary().integral


@pytest.mark.usefixtures("odd_blocks")
def test_what_is_not_finite_is_counted_over_all_blocks() -> None:
    x = torch.zeros(50, 3, 5)
    x[20, 1, 2], x[20, 2, 0], x[49, 0, 0] = float("inf"), float("nan"), float("nan")
    with pytest.raises(ValueError, match=r"^3 values are not finite, the first inf at \(20, 1, 2\); pass a mask"):
        Split(x).summary()
    with pytest.raises(ValueError, match=r"^1 values are not finite, the first nan at \(49, 0, 0\); pass a mask"):
        Split(x, mask=(torch.arange(50) % 19 != 1)[:, None, None].expand(x.shape)).summary()
    assert Split(x, mask=x.isfinite()).summary().high == 0
    with pytest.raises(ValueError, match="none of 50 data has a value that is observed"):
        Split(x, mask=torch.zeros(x.shape, dtype=torch.bool)).summary()
