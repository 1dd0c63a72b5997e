"""The SDK's methods for the inference family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.client import inputs, results
from penstock.client.inputs import ChatInput, ImageInput, Tier
from penstock.client.operations import Streaming, Unary
from penstock.client.streams import TextReader


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
    return Streaming(InferenceServiceStub, "Generate", request, TextReader(), timeout)
