"""ModelsService: which models the caller may use, from the catalog's last reading."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.adapters.models import current_version, model_message, newest_first, version_message
from gateway.calls import Call
from gateway.catalog import Catalog
from gateway.validation.models import check_get_model, check_list_models, check_list_versions
from gateway.validation.pages import DEFAULT_PAGE_SIZE, page_token, read_page_token
from penstock.api.models.v1 import models_pb2 as pb
from penstock.errors import ModelNotFound
from penstock.service.registry import ModelRecord


class ModelsService:
    """Lists and describes; a model that the caller's key may not use looks missing."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """The caller's models by name."""
        check_list_models(request)
        visible = {
            name: record
            for name, record in self._catalog.models().items()
            if _visible(record, call)
            and request.task in ("", record.versions[current_version(record)].spec.task)
        }
        last = read_page_token(request.page_token)
        names, token = _page([n for n in sorted(visible) if n > last], request.page_size)
        models = [model_message(visible[name], self._catalog) for name in names]
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """One model."""
        check_get_model(request)
        record = self._record(request.model, call)
        return pb.GetModelResponse(model=model_message(record, self._catalog))

    async def ListVersions(
        self, request: pb.ListVersionsRequest, call: Call
    ) -> pb.ListVersionsResponse:
        """A model's versions, newest first."""
        check_list_versions(request)
        record = self._record(request.model, call)
        names = newest_first(record)
        last = read_page_token(request.page_token)
        if last in names:
            names = names[names.index(last) + 1 :]
        page, token = _page(names, request.page_size)
        versions = [version_message(record, name, self._catalog) for name in page]
        return pb.ListVersionsResponse(versions=versions, next_page_token=token)

    def _record(self, model: str, call: Call) -> ModelRecord:
        record = self._catalog.models().get(model)
        if record is None or not _visible(record, call):
            raise ModelNotFound(model)
        return record


def _visible(record: ModelRecord, call: Call) -> bool:
    """A model whose versions are all retired is gone, as calls to it find too."""
    wanted = any(version.state == "wanted" for version in record.versions.values())
    return wanted and call.principal.may_use(record.name)


def _page(names: Sequence[str], page_size: int) -> tuple[Sequence[str], str]:
    """The first names, and the token of those that follow."""
    page = names[: page_size or DEFAULT_PAGE_SIZE]
    return page, page_token(page[-1]) if len(page) < len(names) else ""
