"""Server certificates from files, read again when they change."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

log = logging.getLogger(__name__)


class Certificates:
    """The certificate and key files of one server."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        self._certificate = certificate
        self._private_key = private_key
        self._seen = self._state()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files; raises OSError when they cannot be read now."""
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._reread,  # type: ignore[arg-type]  # None is documented: keep the present one
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._private_key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair])

    def _state(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._private_key.stat().st_mtime_ns

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
