"""docs/settings.md tells every knob as the code has it."""

from __future__ import annotations

from tests.house.settings_page import PAGE, page


def test_the_settings_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.house.settings_page"
