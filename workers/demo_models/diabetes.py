"""diabetes: predicts how far a patient's diabetes progresses (tabular-regression, ONNX)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock.service.packages import Feature, ModelSpec

SEED = 20260102
NAMES = (
    "age",
    "sex",
    "body_mass_index",
    "blood_pressure",
    "total_cholesterol",
    "low_density_lipoproteins",
    "high_density_lipoproteins",
    "cholesterol_ratio",
    "log_triglycerides",
    "blood_sugar",
)
CARD = """
## Data

The diabetes study of Efron, Hastie, Johnstone and Tibshirani (Least Angle Regression, Annals of
Statistics, 2004) as bundled with scikit-learn: 442 patients, ten measurements at the start, and a
score of the disease's progression one year later (25 to 346). Units are those of the study; `sex`
is coded 1 or 2 there, without saying which is which.

## Training

Ridge regression on standardised measurements, its strength chosen by cross-validation, on four
fifths of the patients. Tested on the other fifth.

## Limits

Few patients of one study, decades ago; half of the variance stays unexplained. Not for medical use.
"""


def build(out: Path) -> ModelSpec:
    """Fits on four fifths, measures on one, writes model.onnx."""
    data, target = load_diabetes(return_X_y=True, scaled=False)
    known, unseen, progress, truth = train_test_split(
        data.astype(np.float32), target, test_size=0.2, random_state=SEED
    )
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 30))).fit(known, progress)
    exported = to_onnx(model, known[:1], target_opset=17)
    (out / "model.onnx").write_bytes(exported.SerializeToString())
    predicted = model.predict(unseen)
    return ModelSpec(
        name="diabetes",
        version="1",
        task="tabular-regression",
        runtime="onnx",
        weights="model.onnx",
        description="Predicts the progression of diabetes within a year. A demonstration.",
        license="BSD-3-Clause",
        features=tuple(Feature(name=name) for name in NAMES),
        max_batch=1024,
        quality={
            "r2": round(float(r2_score(truth, predicted)), 4),
            "mean_absolute_error": round(float(mean_absolute_error(truth, predicted)), 2),
        },
    )
