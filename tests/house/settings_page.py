"""Writes docs/settings.md from the settings classes: ``python -m tests.house.settings_page``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from gateway.settings import GatewaySettings
from scheduler.settings import SchedulerSettings
from workers.settings import AgentSettings, TritonSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
PROGRAMS: dict[str, type[BaseSettings]] = {
    "Gateway, `python -m gateway`": GatewaySettings,
    "Scheduler, `python -m scheduler`": SchedulerSettings,
    "Serving agent, `python -m workers`": AgentSettings,
    "Triton launcher, `python -m workers.triton`": TritonSettings,
}
_OPENING = """# Settings

Every program reads its settings from environment variables, once, when it starts; a bad value is
named and stops it. This page is written from the code by `python -m tests.house.settings_page`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_OPENING, *(_section(title, kind) for title, kind in PROGRAMS.items())])


def _section(title: str, kind: type[BaseSettings]) -> str:
    prefix = str(kind.model_config.get("env_prefix"))
    told = _told(kind)
    rows = [
        f"| `{prefix}{name.upper()}` | {_default(field)} | {told[name]} |"
        for name, field in kind.model_fields.items()
    ]
    return "\n".join(
        [f"## {title}\n", "| variable | default | what it is |", "|---|---|---|", *rows, ""]
    )


def _told(kind: type[BaseSettings]) -> dict[str, str]:
    """What the text under each field says; those of the parent class included."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if issubclass(owner, BaseSettings) and owner is not BaseSettings:
            source = inspect.getsource(owner)
            for name, text in re.findall(
                r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.M | re.S
            ):
                found[name] = " ".join(text.split()).replace("``", "`")
    return found


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        return "the host's name"
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, SecretStr):
        return "secret"
    return "empty" if value == "" else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
