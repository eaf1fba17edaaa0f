"""gRPC channels with credentials: TLS where it is asked for, and the token with every call."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from chainrule.address import is_local
from chainrule.security.credentials import CA_VARIABLE, Credentials, Tls
from chainrule.security.tls_files import read_authorities, read_identity

PROBE_TIMEOUT_S = 3.0
_KINDS = {
    "UnaryUnary": "unary_unary",
    "UnaryStream": "unary_stream",
    "StreamUnary": "stream_unary",
    "StreamStream": "stream_stream",
}
Options = Sequence[tuple[str, Any]]


def open_channel(address: str, credentials: Credentials, options: Options) -> grpc.Channel:
    """A channel to HOST:PORT or unix:PATH; nothing is sent before the first call. Raises CredentialsError.

    A proxy of the environment is passed by for addresses on this machine."""
    credentials.check(address)
    if credentials.tls is None or address.startswith("unix:"):
        channel = grpc.insecure_channel(address, options=_with_proxy(address, options))
    else:
        channel = grpc.secure_channel(address, _ssl(credentials.tls), options=_with_proxy(address, options))
    return (
        channel if credentials.token is None else grpc.intercept_channel(channel, _token_interceptor(credentials.token))
    )


def open_aio_channel(address: str, credentials: Credentials, options: Options) -> grpc.aio.Channel:
    """The same for asyncio."""
    credentials.check(address)
    interceptors = None if credentials.token is None else _aio_tokens(credentials.token)
    with_proxy = _with_proxy(address, options)
    if credentials.tls is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=with_proxy, interceptors=interceptors)
    return grpc.aio.secure_channel(address, _ssl(credentials.tls), options=with_proxy, interceptors=interceptors)


def why_no_connection(address: str, credentials: Credentials) -> str | None:
    """Why TLS fails with what listens at the address, and what to do; None where it isn't TLS that fails.

    gRPC says little of it, so this asks again, once, within PROBE_TIMEOUT_S."""
    if address.startswith("unix:"):
        return None
    tls, first = credentials.tls, None
    try:
        if tls is None:
            if _handshake(address, _trusting(None)) is None:
                return None
            return f"the server at {address} speaks TLS; name its authority's certificate (--tls-ca or {CA_VARIABLE})"
        first = _handshake(address, _trusting(tls))
        if first is None:
            return f"the server at {address} speaks no TLS; start it with --tls-certificate, or leave --tls-ca away"
        _handshake(address, _checking(tls))
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {address} is refused: {error.verify_message.rstrip('.').lower()}{_advice(error)}"
    except ssl.SSLError as error:
        # An alert is the server's last word; gRPC's own server closes without one.
        first = b"" if "ALERT" in (error.reason or "") else b"?"
    except OSError:
        return None
    if tls is not None and first == b"":
        given = "refuses this client's certificate" if tls.certificate is not None else "wants a client's certificate"
        return f"the server at {address} {given}; --tls-certificate and --tls-key name one that its --client-ca made"
    return None


def _advice(error: ssl.SSLCertVerificationError) -> str:
    text = error.verify_message.lower()
    if "mismatch" in text:
        return "; connect by a name that it was made for, or make one with this name (--host)"
    if "expired" in text:
        return "; it must be renewed where the server runs ('chainrule certificates renew')"
    return "; is --tls-ca the file of the authority that made it?"


def _with_proxy(address: str, options: Options) -> list[tuple[str, Any]]:
    return [*options, ("grpc.enable_http_proxy", 0)] if is_local(address) else [*options]


def _ssl(tls: Tls) -> grpc.ChannelCredentials:
    identity = None
    if tls.certificate is not None and tls.key is not None:
        identity = read_identity(tls.certificate, tls.key, now=datetime.datetime.now(datetime.UTC))
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.ca is None else read_authorities(tls.ca),
        private_key=None if identity is None else identity.key,
        certificate_chain=None if identity is None else identity.certificate,
    )


def _checking(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    return _with_identity(context, tls)


def _trusting(tls: Tls | None) -> ssl.SSLContext:
    """Only to find out whether there is TLS at all: nothing is ever sent over it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context if tls is None else _with_identity(context, tls)


def _with_identity(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    if tls.certificate is not None and tls.key is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["h2"])
    return context


def _handshake(address: str, context: ssl.SSLContext) -> bytes | None:
    """The first byte that comes over TLS; none where the server closes. None: what listens there speaks no TLS.

    With TLS 1.3 a server refuses a client's certificate only after the handshake. Raises ssl.SSLError, OSError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                return secured.recv(1)
        except ssl.SSLEOFError:
            return None
        except ssl.SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
                return None
            raise
        except ConnectionResetError:
            return None


class _Details(NamedTuple):
    """A call's details with other metadata: gRPC's own class of them is abstract."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


def _token_interceptor(token: str) -> Any:
    """Puts the token into the metadata of every call."""
    header = ("authorization", f"Bearer {token}")

    def with_token(self: Any, continuation: Callable[..., Any], details: Any, request: Any) -> Any:  # noqa: ARG001
        metadata = [*(details.metadata or ()), header]
        return continuation(
            _Details(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )

    kinds = tuple(getattr(grpc, f"{kind}ClientInterceptor") for kind in _KINDS)
    return type("Token", kinds, {f"intercept_{name}": with_token for name in _KINDS.values()})()


def _aio_tokens(token: str) -> list[grpc.aio.ClientInterceptor]:
    """One for each kind of call: grpc.aio takes each for one kind only."""
    header = ("authorization", f"Bearer {token}")

    async def with_token(self: Any, continuation: Callable[..., Any], details: Any, request: Any) -> Any:  # noqa: ARG001
        metadata = grpc.aio.Metadata(*(details.metadata or ()), header)
        return await continuation(details._replace(metadata=metadata), request)

    return [
        type("Token", (getattr(grpc.aio, f"{kind}ClientInterceptor"),), {f"intercept_{name}": with_token})()
        for kind, name in _KINDS.items()
    ]
