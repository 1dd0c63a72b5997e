"""Search by meaning: passages are embedded in bulk over one call, then a question finds its own."""

import sys

from penstock import Client

PASSAGES = [
    "Refunds are paid to the card you used within five days.",
    "Short wavelengths of sunlight scatter more in the atmosphere.",
    "Departures to the city are every half hour from platform 2.",
]
question = " ".join(sys.argv[1:]) or "How do I get my money back?"

with Client() as client:
    groups = ((str(number), [text]) for number, text in enumerate(PASSAGES))
    index = {group.group_id: group.embeddings[0] for group in client.embed_stream("minilm", groups)}
    asked = client.embed("minilm", question)[0]

# Vectors have length 1, so that their dot product is the cosine of the angle between them.
cosines = {key: sum(a * b for a, b in zip(asked, index[key], strict=True)) for key in index}
best = max(cosines, key=cosines.__getitem__)
print(f"{PASSAGES[int(best)]} (cosine {cosines[best]:.2f})")
