"""Random observations of any rows."""

import numpy as np

from vae_pyro.data.streams.noise import uniform


def test_uniform_numbers_at_any_place_of_numpys_stream() -> None:
    whole = np.random.default_rng(9).random(1001, dtype=np.float32)
    for start in (0, 1, 2, 7, 500, 999, 1000):
        for count in (0, 1, (1001 - start) // 2, 1001 - start):
            np.testing.assert_array_equal(uniform(9, start, count), whole[start : start + count])
