"""What the everyday methods return: the contracts' answers as plain Python values."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.types.v1.metadata_pb2 import ResponseMetadata
from penstock.client.failures import error_of_status
from penstock.errors import PenstockError

if TYPE_CHECKING:
    import numpy

Item = TypeVar("Item")


class Results(Sequence[Item], Generic[Item]):
    """One item an input, in the order of the inputs, and the answer's metadata.

    ``metadata`` is the contract's ResponseMetadata: request_id, model_version, region, replica,
    timing, usage, confidence.
    """

    def __init__(self, items: Sequence[Item], metadata: ResponseMetadata) -> None:
        self._items = items
        self.metadata = metadata

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the model's confidence in it, 0 to 1."""

    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The ranking for one text or image."""

    labels: tuple[Label, ...]
    """Best first, at most top_k."""

    @property
    def label(self) -> str:
        """The best label."""
        return self.labels[0].label

    @property
    def confidence(self) -> float:
        """The confidence in the best label, 0 to 1."""
        return self.labels[0].confidence


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome for one row."""

    label: str
    """The most probable label; empty for a regression."""
    score: float
    """The label's probability, 0 to 1; for a regression the predicted value."""
    probabilities: Mapping[str, float]
    """Every label's probability, in the model's order; empty for a regression."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One labelled span of a text: ``text == whole[start:end]``, in code points."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object in an image."""

    label: str
    score: float
    """0 to 1."""
    box: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in pixels of the image as sent; the origin is at the top left."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects in one image, best first."""

    objects: tuple[Detection, ...]
    width: int
    """Of the image, in pixels."""
    height: int

    def __iter__(self) -> Iterator[Detection]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)


class Embeddings(Sequence[list[float]]):
    """One vector a text, in the order of the texts. Indexing gives a list of floats."""

    def __init__(
        self, embeddings: Sequence[embeddings_pb2.Embedding], metadata: ResponseMetadata
    ) -> None:
        self._vectors = [_floats(embedding) for embedding in embeddings]
        self.tokens = [embedding.tokens for embedding in embeddings]
        """How many tokens of each text the model read."""
        self.truncated = [embedding.truncated for embedding in embeddings]
        """Whether each text's end was left out."""
        self.metadata = metadata

    @overload
    def __getitem__(self, index: int) -> list[float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[float]]: ...
    def __getitem__(self, index: int | slice) -> list[float] | list[list[float]]:
        if isinstance(index, slice):
            return [vector.tolist() for vector in self._vectors[index]]
        return self._vectors[index].tolist()

    def __len__(self) -> int:
        return len(self._vectors)

    def __repr__(self) -> str:
        dimensions = len(self._vectors[0]) if self._vectors else 0
        return f"<{len(self)} embeddings of {dimensions} dimensions>"

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """The vectors as a float32 matrix [texts, dimensions]. Needs numpy, which is not ours."""
        import numpy

        return numpy.array(self._vectors, dtype=numpy.float32)


@dataclass(frozen=True, slots=True)
class EmbeddedGroup:
    """The answer for one group of an embed_stream: either embeddings or its own error."""

    group_id: str
    embeddings: Embeddings
    """Empty when the group failed."""
    error: PenstockError | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished generation."""

    text: str
    finish_reason: str
    """stop: the model ended it or a stop text was met; length: max_tokens was reached."""
    metadata: ResponseMetadata


def read_classify(response: inference.ClassifyResponse) -> Results[Classification]:
    """One ranking an input."""
    rankings = [
        Classification(tuple(Label(label.label, label.confidence) for label in result.labels))
        for result in response.results
    ]
    return Results(rankings, response.metadata)


def read_predict(response: inference.PredictResponse) -> Results[Prediction]:
    """One prediction a row."""
    predictions = [
        Prediction(
            prediction.label,
            prediction.score,
            {each.label: each.probability for each in prediction.probabilities},
        )
        for prediction in response.predictions
    ]
    return Results(predictions, response.metadata)


def read_entities(response: inference.ExtractEntitiesResponse) -> Results[list[Entity]]:
    """One list of entities a text."""
    lists = [
        [Entity(e.label, e.text, e.start, e.end, e.score) for e in result.entities]
        for result in response.results
    ]
    return Results(lists, response.metadata)


def read_detections(response: inference.DetectObjectsResponse) -> Results[Detections]:
    """One list of objects an image."""
    images = [
        Detections(tuple(_detection(d) for d in result.detections), result.width, result.height)
        for result in response.results
    ]
    return Results(images, response.metadata)


def _detection(found: inference.Detection) -> Detection:
    box = found.box
    corners = (box.x_min, box.y_min, box.x_max, box.y_max)
    return Detection(found.label, found.score, corners)


def read_embed(response: embeddings_pb2.EmbedResponse) -> Embeddings:
    """One vector a text."""
    return Embeddings(response.embeddings, response.metadata)


def read_group(response: embeddings_pb2.EmbedStreamResponse) -> EmbeddedGroup:
    """One group's vectors, or its error."""
    error = error_of_status(response.error) if response.HasField("error") else None
    embeddings = Embeddings(response.embeddings, response.metadata)
    return EmbeddedGroup(response.group_id, embeddings, error)


def _floats(embedding: embeddings_pb2.Embedding) -> array[float]:
    if not embedding.packed:
        return array("f", embedding.values)
    vector = array("f", embedding.packed)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
