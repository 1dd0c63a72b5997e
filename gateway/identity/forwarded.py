"""x-forwarded-client-cert (XFCC): what an Envoy that ends TLS says of its client's certificate.

Format: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
(x-forwarded-client-cert). Elements are separated by commas, an element's ``key=value`` pairs by
semicolons; values may be quoted. Each proxy appends an element, so the last one is the word of the
proxy that is our peer, and all others are hearsay.
"""

from __future__ import annotations

import re

HEADER = "x-forwarded-client-cert"

_KEYS = frozenset({"by", "hash", "cert", "chain", "subject", "uri", "dns"})
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)(;|,|$)')


class Malformed(ValueError):
    """The header is not what Envoy writes."""


def client_uris(header: str) -> list[str]:
    """The URI names in the certificate of our peer's client. Raises Malformed."""
    uris: list[str] = []
    position = 0
    while position < len(header):
        match = _PAIR.match(header, position)
        if match is None or match[1].lower() not in _KEYS:
            raise Malformed("not a list of key=value pairs")
        if match[1].lower() == "uri":
            uris.append(_unquoted(match[2]))
        position = match.end()
        if match[3] == ",":
            uris.clear()
        if match[3] and position == len(header):
            raise Malformed("ends in the middle")
    return uris


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
