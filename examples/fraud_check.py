"""A payment waits for its fraud score, at most 50 ms; without one, a rule decides."""

from penstock import Client, errors

PAYMENT = {
    "amount": 890.0,
    "hour": 3,
    "channel": "web",
    "merchant": "electronics",
    "account_age_days": 6,
    "payments_last_hour": 4,
    "new_device": True,
    "distance_km": None,  # unknown: the model allows it
}

with Client() as client:
    client.models.get("fraud")  # connects before the first payment comes, outside its 50 ms
    try:
        scored = client.predict("fraud", PAYMENT, tier="interactive", timeout=0.050)
        risk, why = scored[0].probabilities["fraud"], f"model {scored.metadata.model_version}"
    except (errors.DeadlineExceeded, errors.Unavailable) as error:
        risk, why = (0.9 if PAYMENT["new_device"] else 0.1), f"rule, for {error.reason}"
print(f"{'hold' if risk > 0.5 else 'pay'} (risk {risk:.1%}, by {why})")
