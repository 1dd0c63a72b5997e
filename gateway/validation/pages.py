"""The pages of a list: how large they may be, and the tokens that they hand out."""

from __future__ import annotations

import base64
import binascii

from gateway.validation.fields import Violations

DEFAULT_PAGE_SIZE = 100
"""Items of a page when the caller does not choose."""
MAX_PAGE_SIZE = 1_000
"""Items of one page."""


def page_token(last: str) -> str:
    """The token of the page that follows the item of this name."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def read_page_token(token: str) -> str:
    """The name that a page follows; raises ValueError when this server never made the token."""
    try:
        last = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a page token") from error
    if page_token(last) != token:
        raise ValueError("not a page token")
    return last


def check_page(page_size: int, token: str, violations: Violations) -> None:
    """Checks what a list's request says about its page."""
    if page_size > MAX_PAGE_SIZE:
        violations.add("page_size", f"is {page_size:,}; at most {MAX_PAGE_SIZE:,} are allowed")
    try:
        read_page_token(token)
    except ValueError:
        violations.add("page_token", "is not one that an earlier page gave")
