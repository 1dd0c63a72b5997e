"""Authorities and certificates, made for a test."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Signs what it is told to."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key, 3600.0)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        self._name = name
        self.pair = Pair(builder.sign(key, SHA256()), key)

    @property
    def pem(self) -> bytes:
        return self.pair.pem

    def server(self) -> Pair:
        """For localhost."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self._issue(names)

    def workload(self, *uris: str, seconds: float = 3600.0, authority: bool = False) -> Pair:
        """With these URI names."""
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        return self._issue(names, seconds, authority)

    def _issue(
        self, names: Sequence[x509.GeneralName], seconds: float = 3600.0, authority: bool = False
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder("leaf", self._name, key, seconds)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=authority, path_length=None), critical=True
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Pair(builder.sign(self.pair.key, SHA256()), key)


def trusting(authority: Authority, client: Pair | None = None) -> grpc.ChannelCredentials:
    """For a client that trusts the authority and shows a certificate, if it has one."""
    own = () if client is None else (client.key_pem, client.pem)
    return grpc.ssl_channel_credentials(authority.pem, *own)


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, seconds: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(seconds=seconds))
    )
