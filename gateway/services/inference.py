"""InferenceService: validate, resolve the model, translate, dispatch, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from gateway.adapters import classification, detection, entities, generation, tabular
from gateway.adapters.usage import image_usage, row_usage, token_count, token_usage
from gateway.answers import response_metadata
from gateway.calls import Call
from gateway.dispatch import Dispatch
from gateway.services.translation import translated
from gateway.validation import inference as validation
from gateway.validation.features import read_features
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.errors import ReplicaUnavailable


class InferenceService:
    """Runs a model once, or as a stream."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Scores rows of features."""
        validation.check_predict(request)
        target = self._dispatch.resolve(request.model, request.model_version, tabular.TASKS, call)
        spec = target.spec
        given = len(request.rows.rows) or request.matrix.rows
        rows, values = await translated(given, read_features, request, spec.features)
        tensor = tabular.features_tensor(values, spec)
        answer = await self._dispatch.infer(target, rows, [tensor], call, tier=request.tier)
        found, confidence = await translated(rows, tabular.predictions, answer, spec)
        metadata = response_metadata(target, answer, call, row_usage(rows), confidence)
        return pb.PredictResponse(predictions=found, metadata=metadata)

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse:
        """Ranks labels for texts or images."""
        validation.check_classify(request)
        target = self._dispatch.resolve(
            request.model, request.model_version, classification.TASKS, call
        )
        validation.check_classify_fits(request, target.spec)
        rows = len(request.texts) or len(request.images)
        tensor = classification.classify_tensor(request)
        answer = await self._dispatch.infer(target, rows, [tensor], call, tier=request.tier)
        found, confidence = classification.rankings(answer, target.spec, request.top_k)
        usage = classification.classify_usage(answer, target.spec, rows)
        metadata = response_metadata(target, answer, call, usage, confidence)
        return pb.ClassifyResponse(results=found, metadata=metadata)

    async def ExtractEntities(
        self, request: pb.ExtractEntitiesRequest, call: Call
    ) -> pb.ExtractEntitiesResponse:
        """Finds labelled spans in texts."""
        validation.check_extract_entities(request)
        target = self._dispatch.resolve(request.model, request.model_version, entities.TASKS, call)
        tensor = classification.text_tensor(request.texts)
        answer = await self._dispatch.infer(
            target, len(request.texts), [tensor], call, tier=request.tier
        )
        found, confidence = entities.entity_lists(answer, request.texts, request.min_score)
        metadata = response_metadata(target, answer, call, token_usage(answer), confidence)
        return pb.ExtractEntitiesResponse(results=found, metadata=metadata)

    async def DetectObjects(
        self, request: pb.DetectObjectsRequest, call: Call
    ) -> pb.DetectObjectsResponse:
        """Finds labelled boxes in images."""
        validation.check_detect_objects(request)
        target = self._dispatch.resolve(request.model, request.model_version, detection.TASKS, call)
        images = len(request.images)
        tensor = detection.image_tensor(request.images)
        answer = await self._dispatch.infer(target, images, [tensor], call, tier=request.tier)
        found, confidence = detection.detection_lists(
            answer, request.min_score, request.max_detections
        )
        metadata = response_metadata(target, answer, call, image_usage(images), confidence)
        return pb.DetectObjectsResponse(results=found, metadata=metadata)

    async def Generate(
        self, request: pb.GenerateRequest, call: Call
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Continues a prompt or answers a chat; what was sent is billed, however it ends."""
        validation.check_generate(request)
        target = self._dispatch.resolve(
            request.model, request.model_version, generation.TASKS, call
        )
        validation.check_generate_fits(request, target.spec)
        inputs = generation.generation_tensors(request, target.spec)
        reader = generation.StepReader(target.spec)
        async with aclosing(self._dispatch.stream(target, inputs, call, tier=request.tier)) as got:
            async for answer in got:
                step = reader.read(answer)
                usage = call.usage = token_count(step.tokens_read, step.tokens_written)
                if step.finish_reason:
                    metadata = response_metadata(target, answer, call, usage)
                    yield pb.GenerateResponse(
                        delta=step.delta, finish_reason=step.finish_reason, metadata=metadata
                    )
                    return
                if step.delta:
                    yield pb.GenerateResponse(delta=step.delta)
        raise ReplicaUnavailable(target.model)
