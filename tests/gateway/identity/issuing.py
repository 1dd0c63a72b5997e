"""A token issuer on this machine: real keys, a real HTTP server, and every wish of a forger."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from gateway.identity.issuers import Issuer


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """The key of that name; made once, for it takes a while."""
    return generate_private_key(65537, 2048)


def public_jwk(key: RSAPrivateKey, kid: str) -> dict[str, Any]:
    """As a key set lists it."""
    entry: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return entry | {"kid": kid, "use": "sig"}


def segment(value: Any) -> str:
    """One of a token's three parts."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class IssuerServer:
    """Serves discovery and keys; counts the fetches of keys."""

    def __init__(self) -> None:
        self.keys: dict[str, RSAPrivateKey] = {"k1": rsa_key("k1")}
        self.fetches = 0
        self.broken = False
        self.discovery: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()

    def described(self, **fields: Any) -> Issuer:
        """Its entry in the issuers file."""
        return Issuer.model_validate(
            {
                "issuer": self.url,
                "audiences": ["penstock"],
                "algorithms": ["RS256"],
                "tenant": {"fixed": "acme"},
                "insecure_loopback": True,
                "scopes": {"claim": "scope"},
            }
            | fields
        )

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Good claims; None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "penstock",
            "sub": "svc",
            "iat": now,
            "exp": now + 600,
            "scope": "inference:invoke",
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, headers: Mapping[str, Any] | None = None, **changed: Any) -> str:
        """A token that is good but for what is changed."""
        head = {"kid": "k1", "typ": "at+jwt"} | dict(headers or {})
        return jwt.encode(self.claims(**changed), self.keys["k1"], "RS256", headers=head)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.broken:
            request.send_error(503)
            return
        if request.path == "/jwks":
            self.fetches += 1
            body: Any = {"keys": [public_jwk(key, kid) for kid, key in self.keys.items()]}
        else:
            body = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | self.discovery
        data = json.dumps(body).encode()
        request.send_response(200)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
