"""Workload identities: the SPIFFE id that a client's certificate, or a trusted sidecar, proves.

gRPC has verified the certificate against the bundle when a call arrives. What is left is to read
the one id in it, and to refuse a certificate that has run out since its connection began.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryptography import x509

from gateway.identity import forwarded, spiffe
from gateway.identity.forwarded import client_uris
from gateway.identity.spiffe import LOOPBACK
from penstock.errors import Unauthenticated

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_MOST_CERTIFICATES = 10_000


class Peer(Protocol):
    """The other end of a call's connection, as gRPC describes it."""

    def peer(self) -> str:
        """Its address, such as ipv4:10.0.0.7:41234."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS has proven of it."""


@dataclass(frozen=True, slots=True)
class _Certificate:
    spiffe_id: str
    """Empty when it names none."""
    until: float


class Mesh:
    """Reads who is at the other end. ``forwarders`` are the SPIFFE ids of proxies whose
    x-forwarded-client-cert is believed, or LOOPBACK."""

    def __init__(self, forwarders: Sequence[str] = ()) -> None:
        self._forwarders = frozenset(forwarders)
        self._certificates: OrderedDict[bytes, _Certificate] = OrderedDict()

    def identity(self, peer: Peer, metadata: Mapping[str, str | bytes]) -> str:
        """The caller's SPIFFE id; empty when it has shown none. Raises Unauthenticated.

        A forwarder never calls in its own name: of a plaintext client it would lend its own.
        """
        own = self._own(peer)
        if not self._forwards(own, peer):
            return own
        header = metadata.get(forwarded.HEADER, "")
        if not header:
            return ""
        if isinstance(header, bytes):
            raise Unauthenticated(f"{forwarded.HEADER} is malformed")
        try:
            return _only_id(client_uris(header))
        except forwarded.Malformed as error:
            raise Unauthenticated(f"{forwarded.HEADER} is malformed: {error}") from None

    def _own(self, peer: Peer) -> str:
        pem = b"".join(peer.auth_context().get("x509_pem_cert", ()))
        if not pem:
            return ""
        certificate = self._certificates.get(pem)
        if certificate is None:
            certificate = self._certificates[pem] = _read(pem)
            if len(self._certificates) > _MOST_CERTIFICATES:
                self._certificates.popitem(last=False)
        if certificate.until < time.time():
            raise Unauthenticated("the client certificate has run out")
        return certificate.spiffe_id

    def _forwards(self, own: str, peer: Peer) -> bool:
        if not self._forwarders:
            return False
        return own in self._forwarders or (
            not own and LOOPBACK in self._forwarders and _is_loopback(peer.peer())
        )


def _read(pem: bytes) -> _Certificate:
    """Raises Unauthenticated for a certificate that is no SPIFFE workload's though it names an id.

    Rules of https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md: one URI name, and no
    authority's certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        until = certificate.not_valid_after_utc.timestamp()
        names = _extension(certificate, x509.SubjectAlternativeName)
        uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
        constraints = _extension(certificate, x509.BasicConstraints)
        usage = _extension(certificate, x509.KeyUsage)
    except ValueError:
        raise Unauthenticated("the client certificate cannot be read") from None
    if not any(uri.lower().startswith("spiffe:") for uri in uris):
        return _Certificate("", until)
    authority = constraints is not None and constraints.ca
    if authority or (usage is not None and (usage.key_cert_sign or usage.crl_sign)):
        raise Unauthenticated("an authority's certificate is no workload's")
    return _Certificate(_only_id(uris), until)


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _only_id(uris: Sequence[str]) -> str:
    if not uris:
        return ""
    if len(uris) > 1 or spiffe.trust_domain_of(uris[0]) is None:
        raise Unauthenticated("the client certificate must have one URI name, a valid SPIFFE id")
    return uris[0]


def _is_loopback(address: str) -> bool:
    kind, _, rest = address.partition(":")
    if kind == "unix":
        return True
    host = rest.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D").strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
