"""The Python SDK: Client and AsyncClient, what they take and what they return."""

from penstock.client.clients import AsyncClient, Client
from penstock.client.configuration import ConfigurationError, Connection, find_connection
from penstock.client.failures import Unreachable, error_of
from penstock.client.results import (
    Classification,
    Detection,
    Detections,
    EmbeddedGroup,
    Embeddings,
    Entity,
    Generation,
    Label,
    Prediction,
    Results,
)
from penstock.client.signing import SigningKey
from penstock.client.streams import AsyncStream, Stream

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Classification",
    "Client",
    "ConfigurationError",
    "Connection",
    "Detection",
    "Detections",
    "EmbeddedGroup",
    "Embeddings",
    "Entity",
    "Generation",
    "Label",
    "Prediction",
    "Results",
    "SigningKey",
    "Stream",
    "Unreachable",
    "error_of",
    "find_connection",
]
