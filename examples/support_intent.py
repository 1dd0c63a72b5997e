"""A product reads what a customer wants: `python examples/support_intent.py "where is my parcel?"`

It routes the ticket by itself when the model is sure, and asks a person when it is not.
"""

import sys

from penstock import Client, errors

text = " ".join(sys.argv[1:]) or "Where is my parcel? It should have come on Monday."

with Client() as client:  # PENSTOCK_ENDPOINT and PENSTOCK_API_KEY, or what `penstock up` wrote
    try:
        intent = client.classify("support-intent", text, top_k=2)[0]
    except errors.PenstockError as error:
        sys.exit(f"{error.reason}: {error.message} (request {error.request_id})")

if intent.confidence >= 0.7:
    print(f"to the {intent.label} queue ({intent.confidence:.0%} sure)")
else:
    print("to a person; it could be", " or ".join(label.label for label in intent.labels))
