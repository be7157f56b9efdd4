"""General-purpose compressors."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vae_pyro.applications.compression import general_compressors
from vae_pyro.applications.compression.general_compressors import compressed_sizes


def test_general_compressors_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, (50, 16, 16))
    sizes = compressed_sizes(noise)
    # Noise has no shorter code than its bits, which packed bytes and a picture of one bit a pixel come near to.
    for bits in sizes.values():
        assert noise.size <= bits < 1.4 * noise.size + 2000
    assert compressed_sizes(np.zeros((50, 16, 16), np.int64))["lzma"] < 2000
    assert "PNG" not in compressed_sizes(random.integers(0, 300, (5, 4, 4)))
    assert "PNG" not in compressed_sizes(noise.reshape(50, -1))

    pictures = []

    class Recording(BytesIO):
        def getvalue(self) -> bytes:
            pictures.append(super().getvalue())
            return pictures[-1]

    monkeypatch.setattr(general_compressors, "BytesIO", Recording)
    grey = random.integers(0, 256, (10, 1, 8, 8))
    for x in (noise, grey):
        bits = compressed_sizes(x)["PNG"]
        assert bits == 8 * len(pictures[-1])
        seen = np.asarray(Image.open(BytesIO(pictures[-1])))
        np.testing.assert_array_equal(seen.astype(np.int64), x.reshape(-1, x.shape[-1]))
