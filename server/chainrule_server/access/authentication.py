"""Who calls, and whether they may: an interceptor before every method, over the table in
server/chainrule_server/access/permissions.py.

A caller is known by a token or, with mutual TLS, by the OU of its certificate. Before that is clear nothing that it
sent is parsed. It knows nothing of jobs; `caller` tells a method by whom it is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from chainrule.holding.errors import ServiceError
from chainrule.process.logs import log_event
from chainrule.security.tokens import ROLES, Holder, TokenError, holder_of, read_holders
from chainrule_server.access.file_changes import FileChanges
from chainrule_server.access.permissions import OPEN, roles_of
from chainrule_server.errors import PermissionDenied, Unauthenticated
from chainrule_server.grpc_status import abort

log = logging.getLogger(__name__)
SCHEME = "bearer "
# How often the tokens' file is looked at, at most.
LOOK_INTERVAL_S = 1.0
# A refused caller may come again and again; the log has room for others too.
LOG_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str
    role: str


# None where the server asks nobody who they are.
caller: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("caller", default=None)


class _Gone(TokenError):
    """There is no file."""


class TokenFile:
    """The tokens' file of the server, read again when it changes. Raises TokenError where it can't be read at first.

    Later a file that can't be read is told in the log, and those who were known stay known; one that is gone has taken
    back every token."""

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock_s = clock_s
        self._looked_s = clock_s()
        self._changes = FileChanges(path)
        self._holders = self._read()

    def holders(self) -> tuple[Holder, ...]:
        """Those who have a token now."""
        now_s = self._clock_s()
        if now_s - self._looked_s >= LOOK_INTERVAL_S:
            self._looked_s = now_s
            if self._changes.any_new():
                self._read_again()
        return self._holders

    def _read_again(self) -> None:
        try:
            self._holders = self._read()
            log.info("tokens read again: %d", len(self._holders), extra=log_event("tokens_read"))
        except _Gone:
            self._holders = ()
            log.warning("the tokens' file %s is gone: no token holds", self._path, extra=log_event("tokens_gone"))
        except TokenError as error:
            log.error("the tokens stay as they were: %s", error, extra=log_event("tokens_not_read"))

    def _read(self) -> tuple[Holder, ...]:
        try:
            return read_holders(self._path.read_text())
        except OSError as error:
            kind = _Gone if isinstance(error, FileNotFoundError | NotADirectoryError) else TokenError
            raise kind(f"the tokens' file {self._path} can't be read: {error.strerror}") from None
        except ValueError as error:
            raise TokenError(f"the tokens' file {self._path}: {error}") from None


@dataclass
class Authentication(grpc.aio.ServerInterceptor):
    """tokens: None where there are none, and certificates alone tell who calls."""

    tokens: TokenFile | None
    clock_s: Callable[[], float] = time.monotonic
    _logged_s: float = field(default=float("-inf"), init=False)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, which first asks who calls."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN:
            return handler
        deserialize = handler.request_deserializer or bytes
        if handler.request_streaming:
            wrapped = self._stream_in(method, handler)
            return handler._replace(**wrapped)
        if handler.response_streaming:
            behaviour: dict[str, Any] = {"unary_stream": self._streaming(method, handler.unary_stream, deserialize)}
        else:
            behaviour = {"unary_unary": self._unary(method, handler.unary_unary, deserialize)}
        return handler._replace(request_deserializer=None, **behaviour)

    def _stream_in(self, method: str, handler: Any) -> dict[str, Any]:
        # A stream's messages are parsed when they are asked for, which is after the check.
        def same(request: Any) -> Any:
            return request

        if handler.response_streaming:
            return {"stream_stream": self._streaming(method, handler.stream_stream, same)}
        return {"stream_unary": self._unary(method, handler.stream_unary, same)}

    def _unary(
        self, method: str, behaviour: Callable[[Any, Any], Awaitable[Any]], deserialize: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            await self._admit(method, context)
            async with self._while_admitted(method, context):
                return await behaviour(deserialize(request), context)

        return call

    def _streaming(
        self, method: str, behaviour: Callable[[Any, Any], AsyncIterator[Any]], deserialize: Callable[[Any], Any]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._admit(method, context)
            async with self._while_admitted(method, context):
                async for response in behaviour(deserialize(request), context):
                    yield response

        return call

    @contextlib.asynccontextmanager
    async def _while_admitted(self, method: str, context: Any) -> AsyncIterator[None]:
        """A stretch that ends with an abort once its caller may no longer call."""
        task = asyncio.current_task()
        if task is None:
            raise TypeError("a call is answered in a task")
        watching = _Watching(task, lambda: self._checked(method, context))
        watching.begin()
        try:
            yield
        except asyncio.CancelledError:
            if watching.error is None:
                raise
            task.uncancel()
            await abort(context, watching.error)
        finally:
            watching.end()

    def _checked(self, method: str, context: Any) -> Caller:
        """Who calls a method that it may call. Raises Unauthenticated, PermissionDenied."""
        found = self._who(context.invocation_metadata() or (), context.auth_context())
        if found.role not in roles_of(method):
            raise PermissionDenied(
                f"{found.name!r} has the role {found.role}; {method.rpartition('/')[2]} is for "
                f"{' and '.join(sorted(roles_of(method)))}: use a token of that role"
            )
        return found

    async def _admit(self, method: str, context: Any) -> None:
        """Set the caller, or abort the call."""
        try:
            caller.set(self._checked(method, context))
        except ServiceError as error:
            now_s = self.clock_s()
            if now_s - self._logged_s >= LOG_INTERVAL_S:
                self._logged_s = now_s
                log.warning("%s of %s refused: %s", method, context.peer(), error, extra=log_event("call_refused"))
            await abort(context, error)

    def _who(self, metadata: Iterable[tuple[str, str | bytes]], auth_context: Any) -> Caller:
        """Who calls. Raises Unauthenticated."""
        shown = [value for key, value in metadata if key == "authorization"]
        if shown:
            token = shown[0].decode(errors="replace") if isinstance(shown[0], bytes) else shown[0]
            if len(shown) > 1 or not token.lower().startswith(SCHEME):
                raise Unauthenticated("the call's authorization must be one, of the form 'Bearer TOKEN'")
            holder = holder_of(token[len(SCHEME) :], self.tokens.holders() if self.tokens is not None else ())
            if holder is None:
                raise Unauthenticated(
                    "the token isn't known here; was it taken back, or is it another server's? Ask for a new one"
                )
            return Caller(holder.name, holder.role)
        found = _of_certificate(auth_context)
        if found is not None:
            return found
        raise Unauthenticated(
            "the call shows no token; set CHAINRULE_TOKEN_FILE (--token-file) or CHAINRULE_TOKEN to one that "
            "'chainrule token create' made for this server"
        )


@dataclass
class _Watching:
    """Looks again and again whether a call's caller may still call, and cancels its task once it may not.

    check: raises ServiceError where it may not. error: why the task was cancelled."""

    task: asyncio.Task[Any]
    check: Callable[[], object]
    error: ServiceError | None = None
    _was_refused: bool = False
    _next: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look in a moment, and then again."""
        self._next = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look)

    def end(self) -> None:
        """Look no longer."""
        if self._next is not None:
            self._next.cancel()

    def _look(self) -> None:
        try:
            self.check()
        except ServiceError as error:
            # Twice: while a file is being replaced it may be gone for a moment, and a worker would end for that.
            if self._was_refused:
                self.error = error
                self.task.cancel()
                return
            self._was_refused = True
        else:
            self._was_refused = False
        self.begin()


def _of_certificate(auth_context: Any) -> Caller | None:
    """The caller that a client's certificate names: its CN, with the role in its OU; None without such a one."""
    pem = next(iter((auth_context or {}).get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    # gRPC has verified it against --client-ca before the first call.
    subject = x509.load_pem_x509_certificate(bytes(pem)).subject
    units = [str(unit.value) for unit in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    names = [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    role = next((unit for unit in units if unit in ROLES), None)
    return None if role is None else Caller(names[0] if names else role, role)
