"""A gRPC handler with something before and after it, whatever the kind of its method: what interceptors are made of."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

# (request, or an iterator of requests, and the call's context) → what is entered before the method and left after it.
Around = Callable[[Any, Any], contextlib.AbstractAsyncContextManager[None]]


def surrounded(handler: Any, around: Around) -> Any:
    """The handler whose every call runs within `around(request, context)`."""
    requests = "stream" if handler.request_streaming else "unary"
    kind = f"{requests}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour = getattr(handler, kind)

    async def answer(request: Any, context: Any) -> Any:
        async with around(request, context):
            return await behaviour(request, context)

    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        async with around(request, context), contextlib.aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    # A method that streams may also be a coroutine that writes to the context, as that of grpc.health.v1 is.
    return handler._replace(**{kind: answers if inspect.isasyncgenfunction(behaviour) else answer})
