"""Tables of imputed elements."""

import numpy as np
import pytest

from vae_pyro.applications.imputation_result import Imputation


def made(level: float | None) -> Imputation:
    """Two data of shape (1, 2); the second lacks its last element."""
    mean, sd = np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[[0.0, 0.0]], [[0.0, 0.5]]])
    lower, upper = (None, None) if level is None else (mean - sd, mean + sd)
    return Imputation(
        mean=mean,
        sd=sd,
        mean_se=sd / 10,
        lower=lower,
        upper=upper,
        imputations=np.empty((0, 2, 1, 2)),
        mask=sd == 0,
        effective_sample_size=np.array([np.nan, 40.0]),
        ids=np.array([7, 9]),
        level=level,
        num_draws=100,
    )


def test_a_table_has_a_row_for_each_missing_element() -> None:
    table = made(0.9).to_dataframe()
    assert table.index.tolist() == [(9, 1)]
    assert table.iloc[0].to_dict() == {
        "mean": 4.0,
        "sd": 0.5,
        "mean_se": 0.05,
        "lower": 3.5,
        "upper": 4.5,
        "effective_sample_size": 40.0,
    }
    assert not {"lower", "upper"} & set(made(None).to_dataframe().columns)


def test_summary_and_its_forms() -> None:
    result = made(0.9)
    summary = result.summary()
    assert (summary["n"], summary["n_incomplete"], summary["missing"]) == (2, 1, 0.25)
    assert summary["mean_se_share_of_sd"] == pytest.approx(0.1)
    assert "1 of 2 data with missing elements, 25.0% of all" in str(result)
    html = result._repr_html_()
    assert "<th>mean_se_share_of_sd</th>" in html
    assert "<td>0.1</td>" in html
