"""The gateway's ports, and their certificates from files that are read again when they change."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)


def open_ports(server: grpc.aio.Server, settings: GatewaySettings) -> int:
    """Opens the ports that the settings ask for; returns the number of the first.

    Raises OSError or RuntimeError. gRPC for Python cannot ask for a client certificate without
    requiring one, so where only some clients have one there are two ports.
    """
    if not settings.tls_certificate:
        return server.add_insecure_port(settings.listen)
    pair = Path(settings.tls_certificate), Path(settings.tls_private_key)
    client_ca = Path(settings.client_ca) if settings.client_ca else None
    if client_ca is None or not settings.mtls_listen:
        return server.add_secure_port(settings.listen, Certificates(*pair, client_ca).credentials())
    mutual = Certificates(*pair, client_ca).credentials()
    port = server.add_secure_port(settings.mtls_listen, mutual)
    log.info("serving clients with certificates", extra={"port": port})
    return server.add_secure_port(settings.listen, Certificates(*pair).credentials())


class Certificates:
    """The certificate and key files of one port, and its clients' authorities if it wants any."""

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None = None) -> None:
        self._certificate = certificate
        self._private_key = private_key
        self._client_ca = client_ca
        self._seen = self._state()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files; raises OSError when they cannot be read now."""
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._reread,  # type: ignore[arg-type]  # None is documented: keep the present one
            require_client_authentication=self._client_ca is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._private_key.read_bytes(), self._certificate.read_bytes())
        authorities = None if self._client_ca is None else self._client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)

    def _state(self) -> tuple[int, ...]:
        files = (self._certificate, self._private_key, self._client_ca)
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)

    def _reread(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake; None keeps the present certificate."""
        try:
            state = self._state()
            if state == self._seen:
                return None
            configuration = self._read()
        except OSError as error:
            log.error("certificate unreadable; keeping the present one", extra={"cause": error})
            return None
        self._seen = state
        log.info("certificate reloaded")
        return configuration
