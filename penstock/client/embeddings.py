"""The SDK's methods for the embeddings family."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from penstock.api.types.v1.metadata_pb2 import ResponseMetadata
from penstock.client import inputs, results
from penstock.client.groups import Groups, outgoing
from penstock.client.inputs import Tier
from penstock.client.operations import Streaming, Unary
from penstock.client.streams import GroupReader


def embed(
    model: str | embeddings.EmbedRequest,
    texts: str | Sequence[str] = (),
    *,
    dimensions: int = 0,
    normalize: bool | None = None,
    truncate: bool = False,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Unary[results.Embeddings]:
    """Turn 1 to 2,048 texts into vectors: ``embed("minilm", ["a", "b"])[0]`` is a list of floats.

    ``dimensions`` keeps that many leading ones (0: all); vectors have length 1 unless ``normalize``
    is False; ``truncate`` cuts texts longer than the model reads instead of raising InputTooLong.
    ``timeout`` is in seconds. Raises as classify.
    """
    request = model
    if isinstance(request, str):
        request = embeddings.EmbedRequest(
            model=request,
            model_version=version,
            tier=inputs.tier_number(tier),
            texts=inputs.text_list(texts),
            options=_embed_options(dimensions, normalize, truncate),
        )
    return Unary(EmbeddingsServiceStub, "Embed", request, results.read_embed, timeout)


def embed_stream(
    model: str,
    groups: Groups,
    *,
    dimensions: int = 0,
    normalize: bool | None = None,
    truncate: bool = False,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Streaming[results.EmbeddedGroup, ResponseMetadata]:
    """Embed many groups of texts over one call, for bulk indexing.

    ``groups`` gives (group id, 1 to 2,048 texts), lazily if it likes: it is read as fast as the
    server takes it. AsyncClient takes asynchronous iterables too. Yields an EmbeddedGroup a group,
    as they are ready, in any order; a group's own error is in it. ``timeout`` is in seconds, for
    the whole stream. Raises as classify, and what ``groups`` raises.
    """
    first = embeddings.EmbedStreamRequest(
        model=model,
        model_version=version,
        tier=inputs.tier_number(tier),
        options=_embed_options(dimensions, normalize, truncate),
    )
    requests, reader = outgoing(first, groups), GroupReader()
    return Streaming(EmbeddingsServiceStub, "EmbedStream", requests, reader, timeout)


def _embed_options(
    dimensions: int, normalize: bool | None, truncate: bool
) -> embeddings.EmbedOptions:
    # Packed: half the time and a third of the code of unpacking repeated floats.
    return embeddings.EmbedOptions(
        dimensions=dimensions,
        normalize=normalize,
        encoding=embeddings.VECTOR_ENCODING_PACKED,
        truncation=embeddings.TRUNCATION_END if truncate else embeddings.TRUNCATION_REFUSE,
    )
