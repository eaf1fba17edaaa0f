"""Where the server listens and what protects that: TLS on the network's port, file permissions on the Unix socket."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from chainrule.address import is_loopback
from chainrule.errors import CredentialsError
from chainrule.process.logs import log_event
from chainrule.security.tls_files import Identity, read_authorities, read_identity
from chainrule_server.access.file_changes import FileChanges

log = logging.getLogger(__name__)


class CannotListen(Exception):
    """The server can't listen, or must not; the message says why and what to do."""


@dataclass(frozen=True)
class TlsFiles:
    """certificate, key: the server's own. client_ca: the authority that clients' certificates must come from."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def tls_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """The files of the options. Raises CannotListen where some are missing."""
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise CannotListen("TLS needs both --tls-certificate and --tls-key")
    return TlsFiles(certificate, key, client_ca)


def check_exposure(host: str, *, has_tls: bool, has_authentication: bool, insecure: bool) -> None:
    """Raise CannotListen where anybody on a network could read or command the server, and nobody said --insecure."""
    if is_loopback(host):
        return
    missing = [] if has_tls else ["TLS (--tls-certificate, --tls-key)"]
    if not has_authentication:
        missing.append("authentication (--tokens FILE, or --client-ca for certificates)")
    if missing and not insecure:
        raise CannotListen(
            f"--host {host} can be reached from other machines, and there is no {' and no '.join(missing)}; "
            "docs/security.md has both in four commands. --insecure does without, on a network that you trust"
        )
    for what in missing:
        log.warning("listening on %s without %s: whoever reaches it can use it", host, what, extra=log_event("open"))


class ReloadingCertificate:
    """The server's certificate, read again when its files change: a renewed one needs no restart.

    Raises CredentialsError where the files can't be used at first. Later that is told in the log, and the old
    certificate stays. Connections that are there keep the certificate that they came with."""

    def __init__(self, files: TlsFiles, now: Callable[[], datetime.datetime]) -> None:
        self.files = files
        self._now = now
        self._changes = FileChanges(
            *(path for path in (files.certificate, files.key, files.client_ca) if path is not None)
        )
        self.identity, self._authorities = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with. With client_ca, a client without a certificate is turned away."""
        # The annotation of gRPC's types leaves out the None that its documentation asks for.
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), fetcher, require_client_authentication=self._authorities is not None
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each new connection, in a thread of its own: what changed, or None."""
        if not self._changes.any_new():
            return None
        try:
            self.identity, self._authorities = self._read()
        except CredentialsError as error:
            log.error("the server's certificate stays as it was: %s", error, extra=log_event("certificate_not_read"))
            return None
        extra = log_event("certificate_read")
        log.info("the server's certificate was read again; it is valid until %s", self.identity.not_after, extra=extra)
        return self._configuration()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.identity.key, self.identity.certificate)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self._authorities)

    def _read(self) -> tuple[Identity, bytes | None]:
        files = self.files
        authorities = None if files.client_ca is None else read_authorities(files.client_ca)
        return read_identity(files.certificate, files.key, now=self._now()), authorities


def listen(server: grpc.aio.Server, host: str, port: int, certificate: ReloadingCertificate | None) -> str:
    """Open the port; the address, HOST:PORT. Raises CannotListen."""
    address = f"[{host}]" if ":" in host else host
    try:
        if certificate is None:
            bound = server.add_insecure_port(f"{address}:{port}")
        else:
            bound = server.add_secure_port(f"{address}:{port}", certificate.credentials())
    except RuntimeError:
        raise CannotListen(
            f"{address}:{port} can't be listened on: the port is in use or the address isn't this machine's; "
            "choose another --port (0 takes a free one)"
        ) from None
    return f"{address}:{bound}"


def listen_on_socket(server: grpc.aio.Server, path: Path) -> None:
    """Open a Unix socket that only this user can connect to. Raises CannotListen."""
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError:
        raise CannotListen(f"--socket: {path} can't be listened on; is it used, or its path too long?") from None
    finally:
        os.umask(before)
