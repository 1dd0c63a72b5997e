"""fraud: tells fraudulent card payments from honest ones (tabular-classification, ONNX)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock.service.packages import Feature, ModelSpec

SEED = 20260101
TRAINING_ROWS, TEST_ROWS = 8_000, 4_000
CHANNELS = ("card-present", "web", "app", "phone")
MERCHANTS = ("grocery", "fuel", "clothing", "travel", "electronics", "gift-cards")
FEATURES = (
    Feature(name="amount"),
    Feature(name="hour"),
    Feature(name="channel", categories=CHANNELS),
    Feature(name="merchant", categories=MERCHANTS),
    Feature(name="account_age_days"),
    Feature(name="payments_last_hour"),
    Feature(name="new_device"),
    Feature(name="distance_km", optional=True),
)
CARD = f"""
## Data

Generated, seed {SEED}: no real payment is in it. Amounts are log-normal and depend on the kind of
merchant; hours follow a day's rhythm. The log-odds of fraud rise with large amounts for the
merchant, nights, new devices, young accounts, bursts of payments, great distance from home and
resellable goods bought from afar, partly in combination; a share of the outcome is pure chance.
`distance_km` is unknown for one payment in four. `amount` is in euros, `hour` is 0 to 23 local
time, `new_device` is 0 or 1.

## Training

Gradient boosting (scikit-learn) on {TRAINING_ROWS:,} payments, exported to ONNX with its
preprocessing. Tested on {TEST_ROWS:,} payments drawn separately. `best_possible_roc_auc` is what
knowing the generating process itself would reach.

## Limits

It has learnt an invented world. Do not decide about real payments with it.
"""


def payments(
    rows: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Features [rows, 8], outcomes [rows] and the true log-odds of fraud [rows]."""
    rng = np.random.default_rng(seed)
    channel = rng.choice(len(CHANNELS), rows, p=[0.45, 0.3, 0.2, 0.05])
    merchant = rng.choice(len(MERCHANTS), rows, p=[0.35, 0.15, 0.2, 0.1, 0.15, 0.05])
    usual = np.array([30.0, 50.0, 60.0, 300.0, 150.0, 40.0])[merchant]
    excess = rng.normal(0.0, 0.8, rows)
    hour = np.floor(rng.normal(15.0, 5.0, rows)) % 24
    age = rng.exponential(700.0, rows)
    burst = rng.poisson(0.4, rows) + rng.poisson(3.0, rows) * (rng.random(rows) < 0.05)
    new_device = rng.random(rows) < np.array([0.02, 0.15, 0.1, 0.3])[channel]
    distance = rng.lognormal(2.0, 1.6, rows)
    resellable = np.isin(merchant, [4, 5])
    log_odds = (
        -7.0
        + 1.8 * np.maximum(excess, 0.0)
        + 1.6 * ((hour < 6) | (hour > 22))
        + 2.0 * new_device
        + 2.0 * (age < 60)
        + 1.0 * np.minimum(burst, 6)
        + 0.9 * np.log1p(distance / 100.0)
        + 2.4 * (resellable & (channel > 0))
        + 2.5 * (new_device & (excess > 0.8))
    )
    outcome = rng.random(rows) < 1.0 / (1.0 + np.exp(-log_odds))
    known_distance = np.where(rng.random(rows) < 0.25, np.nan, distance)
    columns = [usual * np.exp(excess), hour, channel, merchant, age, burst, new_device]
    features = np.stack([*columns, known_distance], axis=1).astype(np.float32)
    return features, outcome.astype(np.int64), log_odds


def build(out: Path) -> ModelSpec:
    """Trains on one sample, measures on another, writes model.onnx."""
    features, outcomes, _ = payments(TRAINING_ROWS, SEED)
    categorical = [i for i, feature in enumerate(FEATURES) if feature.categories]
    optional = [i for i, feature in enumerate(FEATURES) if feature.optional]
    prepare = ColumnTransformer(
        [
            ("categories", OneHotEncoder(sparse_output=False), categorical),
            ("unknown", SimpleImputer(strategy="constant", fill_value=-1.0), optional),
        ],
        remainder="passthrough",
    )
    boosting = GradientBoostingClassifier(
        n_estimators=120, max_depth=4, subsample=0.7, learning_rate=0.08, random_state=SEED
    )
    model = make_pipeline(prepare, boosting).fit(features, outcomes)
    exported = to_onnx(model, features[:1], options={"zipmap": False}, target_opset=17)
    (out / "model.onnx").write_bytes(exported.SerializeToString())
    unseen, truth, log_odds = payments(TEST_ROWS, SEED + 1)
    probability = model.predict_proba(unseen)[:, 1]
    return ModelSpec(
        name="fraud",
        version="1",
        task="tabular-classification",
        runtime="onnx",
        weights="model.onnx",
        description="Scores card payments by how likely they are fraud. A demonstration.",
        license="Apache-2.0",
        labels=("honest", "fraud"),
        features=FEATURES,
        max_batch=1024,
        quality={
            "roc_auc": round(float(roc_auc_score(truth, probability)), 4),
            "best_possible_roc_auc": round(float(roc_auc_score(truth, log_odds)), 4),
            "accuracy": round(float(accuracy_score(truth, probability > 0.5)), 4),
            "accuracy_of_always_honest": round(float(1.0 - truth.mean()), 4),
        },
    )
