"""A table of six columns."""

from typing import Any

import numpy as np
import pandas as pd

ROWS = 60


def sample(seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Two columns of real numbers, one of counts, of Booleans, of names and of ordered categories; and others."""
    random = np.random.default_rng(seed)
    made = {
        "height": 170 + 10 * random.normal(size=ROWS),
        "income": np.exp(8 + random.normal(size=ROWS)),
        "visits": random.poisson(3, ROWS),
        "smokes": random.random(ROWS) < 0.4,
        "city": random.choice(["Bern", "Graz", "Lyon"], ROWS),
        "size": pd.Categorical(random.choice(["s", "m", "l"], ROWS), ["s", "m", "l", "xl"], ordered=True),
    }
    return pd.DataFrame({**made, **columns})
