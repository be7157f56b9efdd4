"""Tables and summaries of class probabilities."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vae_pyro.applications.classification_result import Classification

GUIDE = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
JOINT = np.log([[0.06, 0.02], [0.01, 0.03], [0.01, 0.03]])
RESULT = Classification(
    guide=GUIDE,
    log_joint=JOINT,
    log_joint_se=np.full_like(JOINT, 0.01),
    labels=np.array([0, 1, 0]),
    ids=np.array([4, 5, 8]),
    num_draws=50,
)


def test_a_table_has_a_row_for_each_datum() -> None:
    table = RESULT.to_dataframe()
    names = [f"{source}_{what}" for source in ("guide", "model") for what in ("class", "p0", "p1")]
    assert list(table.columns) == ["label", *names]
    assert table.loc[8, ["label", "guide_class", "model_class"]].tolist() == [0, 0, 1]
    np.testing.assert_allclose(table["model_p1"], [0.25, 0.75, 0.75])
    unknown = replace(RESULT, labels=None, guide=None).to_dataframe()
    assert list(unknown.columns) == names[3:]


def test_summary_and_its_forms() -> None:
    summary = json.loads(json.dumps(RESULT.summary()))
    assert (summary["n"], summary["num_classes"], summary["num_draws"]) == (3, 2, 50)
    assert summary["guide_accuracy"] == 1
    assert summary["model_accuracy"] == pytest.approx(2 / 3)
    assert summary["guide_log_score"] == pytest.approx(np.log([0.9, 0.6, 0.7]).mean())
    assert summary["log_px"] == pytest.approx(np.log([0.08, 0.04, 0.04]).mean())
    assert "<th>model_accuracy</th>" in RESULT._repr_html_()
    assert "<td>0.6667</td>" in RESULT._repr_html_()
    alone = replace(RESULT, labels=None, log_joint=None, log_joint_se=None, num_draws=0).summary()
    assert alone == {"n": 3, "num_classes": 2, "num_draws": 0}
