"""The tabular runtimes through a real tritonserver, against scikit-learn and the data itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock.service.local.cluster import LocalCluster
from penstock.service.packages import triton_name
from tests.workers.runtimes.served import ServedModels, refusal
from workers.demo_models import diabetes, fraud

RUNTIMES = ("tabular_classification", "tabular_regression")
HONEST = [25.0, 14.0, 0.0, 0.0, 900.0, 0.0, 0.0, 2.0]
DISTANCE = [feature.name for feature in fraud.FEATURES].index("distance_km")
CHANNEL = [feature.name for feature in fraud.FEATURES].index("channel")


async def test_predictions_equal_those_of_scikit_learn(served: ServedModels) -> None:
    data, target = load_diabetes(return_X_y=True, scaled=False)
    known, unseen, progress, _ = train_test_split(
        data.astype(np.float32), target, test_size=0.2, random_state=diabetes.SEED
    )
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 30))).fit(known, progress)
    outputs = await served.infer("diabetes", unseen)
    np.testing.assert_allclose(outputs["value"][:, 0], model.predict(unseen), rtol=1e-4)


async def test_fraud_in_new_payments_scores_higher(served: ServedModels) -> None:
    payments, outcomes, _ = fraud.payments(1000, seed=77)
    outputs = await served.infer("fraud", payments)
    np.testing.assert_allclose(outputs["scores"].sum(axis=1), 1.0, atol=1e-5)
    assert roc_auc_score(outcomes, outputs["scores"][:, 1]) > 0.85


@pytest.mark.parametrize(("model", "rows"), [("fraud", 40), ("diabetes", 40)])
async def test_rows_together_equal_rows_alone(served: ServedModels, model: str, rows: int) -> None:
    data = fraud.payments(rows, 78)[0] if model == "fraud" else load_diabetes(scaled=False).data
    together = await served.infer(model, data[:rows])
    answers = await served.infer_each(model, [data[row : row + 1] for row in range(rows)])
    for row, answer in enumerate(answers):
        assert isinstance(answer, dict)
        for name, array in answer.items():
            np.testing.assert_allclose(together[name][row], array[0], rtol=1e-5)


async def test_an_optional_feature_may_be_absent(served: ServedModels) -> None:
    row = HONEST.copy()
    row[DISTANCE] = np.nan
    outputs = await served.infer("fraud", [row])
    assert outputs["scores"][0, 0] > 0.5


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, np.nan, "feature 'amount' is missing"),
        (0, np.inf, "feature 'amount' must be finite"),
        (CHANNEL, 4.0, "feature 'channel' must be one of card-present, web, app, phone"),
    ],
)
async def test_a_bad_row_is_refused_and_its_companions_are_answered(
    served: ServedModels, column: int, value: float, message: str
) -> None:
    row = HONEST.copy()
    row[column] = value
    answers = await served.infer_each("fraud", [[HONEST], [HONEST, row], *([[HONEST]] * 20)])
    expected = {"reason": "FIELD_INVALID", "field": "rows", "message": message}
    assert refusal(answers.pop(1)) == expected
    assert all(isinstance(answer, dict) for answer in answers)


@pytest.mark.parametrize("model", ["fraud", "diabetes"])
async def test_no_torch_is_loaded_where_a_tabular_model_runs(
    served: ServedModels, cluster: LocalCluster, model: str
) -> None:
    await served.infer(model, [[1.0] * len(served.spec(model).features)])
    libraries = mapped_libraries(cluster, model)
    assert any("onnxruntime" in library for library in libraries)
    assert not any("libtorch" in library for library in libraries)
    assert any("libtorch" in library for library in mapped_libraries(cluster, "minilm"))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_tabular_runtime_imports_without_torch(runtime: str) -> None:
    program = f"import workers.runtimes.{runtime}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def mapped_libraries(cluster: LocalCluster, model: str) -> set[str]:
    """Files that the model's own process has in its memory."""
    entry = f"{cluster.options.state_dir}/"
    name = triton_name(model, "1")
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "triton_python_backend_stub" in line and entry in line and f"/{name}/" in line:
            return {Path(one.path).name for one in process.memory_maps()}
    raise AssertionError(f"no process runs {model}")
