"""The everyday methods, each written once: what to send, to which method, how to read the answer.

The two clients only differ in how they wait; both take these functions as their methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstock.api.embeddings.v1 import embeddings_pb2 as embeddings
from penstock.api.embeddings.v1.embeddings_pb2_grpc import EmbeddingsServiceStub
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.api.models.v1 import models_pb2 as models
from penstock.api.models.v1.models_pb2_grpc import ModelsServiceStub
from penstock.api.types.v1.metadata_pb2 import ResponseMetadata
from penstock.client import inputs, results, streams
from penstock.client.groups import Groups, outgoing
from penstock.client.inputs import ChatInput, ImageInput, Tier

Result = TypeVar("Result")
Item = TypeVar("Item")
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")


@dataclass(frozen=True, slots=True)
class Unary(Generic[Result]):
    """One call with one answer."""

    service: Any
    """The generated stub class."""
    method: str
    request: Any
    read: Callable[[Any], Result]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Paged(Generic[Item]):
    """A list that comes page by page; ``request`` is sent again with each page's token."""

    service: Any
    method: str
    request: Any
    items: Callable[[Any], Iterable[Item]]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Streaming(Generic[Piece, Whole]):
    """One call whose answer comes in pieces; ``request`` is an iterator where many are sent."""

    service: Any
    method: str
    request: Any
    reader: streams.Reader[Piece, Whole]
    timeout: float | None


def classify(
    model: str | inference.ClassifyRequest,
    texts: str | Sequence[str] = (),
    *,
    images: ImageInput | Sequence[ImageInput] = (),
    top_k: int = 0,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Unary[results.Results[results.Classification]]:
    """Rank labels for each text or each image: ``classify("intent", "where is it?")[0].label``.

    Give 1 to 1,000 texts, or 1 to 64 images as encoded bytes or paths; ``top_k`` 0 returns all
    labels. ``timeout`` is in seconds. Raises ModelNotFound, InvalidArgument, TaskMismatch,
    RateLimited, Unavailable, DeadlineExceeded and the like, all of penstock.errors.
    """
    request = model
    if isinstance(request, str):
        request = inference.ClassifyRequest(
            model=request,
            model_version=version,
            tier=inputs.tier_number(tier),
            texts=inputs.text_list(texts),
            images=inputs.image_list(images),
            top_k=top_k,
        )
    return Unary(InferenceServiceStub, "Classify", request, results.read_classify, timeout)


def extract_entities(
    model: str | inference.ExtractEntitiesRequest,
    texts: str | Sequence[str] = (),
    *,
    min_score: float = 0.0,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Unary[results.Results[list[results.Entity]]]:
    """Find labelled spans in each of 1 to 1,000 texts.

    ``min_score`` (0 to 1) leaves out weaker ones; ``timeout`` is in seconds. Raises as classify.
    """
    request = model
    if isinstance(request, str):
        request = inference.ExtractEntitiesRequest(
            model=request,
            model_version=version,
            tier=inputs.tier_number(tier),
            texts=inputs.text_list(texts),
            min_score=min_score,
        )
    return Unary(InferenceServiceStub, "ExtractEntities", request, results.read_entities, timeout)


def detect_objects(
    model: str | inference.DetectObjectsRequest,
    images: ImageInput | Sequence[ImageInput] = (),
    *,
    min_score: float = 0.0,
    max_detections: int = 0,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Unary[results.Results[results.Detections]]:
    """Find labelled boxes, in pixels, in each of 1 to 64 images (encoded bytes or paths).

    ``min_score`` (0 to 1) leaves out weaker ones; ``max_detections`` 0 is the model's own limit;
    ``timeout`` is in seconds. Raises as classify.
    """
    request = model
    if isinstance(request, str):
        request = inference.DetectObjectsRequest(
            model=request,
            model_version=version,
            tier=inputs.tier_number(tier),
            images=inputs.image_list(images),
            min_score=min_score,
            max_detections=max_detections,
        )
    return Unary(InferenceServiceStub, "DetectObjects", request, results.read_detections, timeout)


def predict(
    model: str | inference.PredictRequest,
    rows: Any = (),
    *,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Unary[results.Results[results.Prediction]]:
    """Score 1 to 10,000 rows: ``predict("fraud", {"amount": 120.0, "country": "de"})[0].score``.

    ``rows`` is a mapping of features by name, a list of those, or a numeric matrix whose columns
    follow the model's signature (lists of numbers, or a two-dimensional numpy array). ``timeout``
    is in seconds. Raises as classify; TypeError for values that are no features.
    """
    request = model
    if isinstance(request, str):
        request = inference.PredictRequest(
            model=request, model_version=version, tier=inputs.tier_number(tier)
        )
        inputs.put_rows(request, rows)
    return Unary(InferenceServiceStub, "Predict", request, results.read_predict, timeout)


def generate(
    model: str | inference.GenerateRequest,
    prompt: str = "",
    *,
    messages: Sequence[ChatInput] = (),
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    stop: str | Sequence[str] = (),
    seed: int | None = None,
    version: str = "",
    tier: Tier | None = None,
    timeout: float | None = None,
) -> Streaming[str, results.Generation]:
    """Continue a prompt, or answer a chat, as a stream of pieces of text.

    ``for piece in client.generate("storyteller", "Once"): print(piece, end="")``; the stream's
    ``result()`` is the whole text, why it ended and the usage. Leaving the loop cancels the call.
    What is None takes the model's default; ``timeout`` is in seconds, for the whole stream. Raises
    as classify, while it is read.
    """
    request = model
    if isinstance(request, str):
        request = inference.GenerateRequest(
            model=request,
            model_version=version,
            tier=inputs.tier_number(tier),
            prompt=prompt,
            messages=inputs.chat_messages(messages),
            parameters=inference.GenerationParameters(
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                stop=inputs.text_list(stop),
                seed=seed,
            ),
        )
    return Streaming(InferenceServiceStub, "Generate", request, streams.TextReader(), timeout)


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
    requests, reader = outgoing(first, groups), streams.GroupReader()
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


def list_models(task: str = "", *, timeout: float | None = None) -> Paged[models.Model]:
    """Every model that the key may use, by name; only those of one task where it is given.

    ``timeout`` is in seconds a page. Raises Unauthenticated, ScopeMissing, RateLimited.
    """
    request = models.ListModelsRequest(task=task)
    return Paged(ModelsServiceStub, "ListModels", request, lambda page: list(page.models), timeout)


def get_model(model: str, *, timeout: float | None = None) -> Unary[models.Model]:
    """One model: task, traffic, state and signature.

    ``timeout`` is in seconds. Raises ModelNotFound, Unauthenticated, ScopeMissing, RateLimited.
    """
    request = models.GetModelRequest(model=model)
    return Unary(ModelsServiceStub, "GetModel", request, lambda answer: answer.model, timeout)


def list_versions(model: str, *, timeout: float | None = None) -> Paged[models.ModelVersion]:
    """Every version of a model, newest first.

    ``timeout`` is in seconds a page. Raises ModelNotFound, Unauthenticated, ScopeMissing,
    RateLimited.
    """
    request = models.ListVersionsRequest(model=model)
    return Paged(
        ModelsServiceStub, "ListVersions", request, lambda page: list(page.versions), timeout
    )
