"""Both clients in one form, so that what a test claims is claimed of both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import chainrule
from chainrule import aio
from chainrule.client.aio.client import Client as AioClient


class InLoop:
    """An object of the asyncio client, used as one of the blocking client: each call runs the loop to its end."""

    def __init__(self, inner: Any, runner: asyncio.Runner) -> None:
        self._inner = inner
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if inspect.iscoroutinefunction(attribute):
            return lambda *arguments, **keywords: self._wrapped(self._runner.run(attribute(*arguments, **keywords)))
        if inspect.isasyncgenfunction(attribute):
            return lambda *arguments, **keywords: self._read(attribute(*arguments, **keywords))
        return attribute

    def __enter__(self) -> InLoop:
        self._runner.run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._inner.__aexit__(*error))

    def __repr__(self) -> str:
        return repr(self._inner)

    def _wrapped(self, found: Any) -> Any:
        if found is self._inner:
            return self
        if isinstance(found, list):
            return [self._wrapped(each) for each in found]
        return InLoop(found, self._runner) if isinstance(found, aio.Job | aio.Model) else found

    def _read(self, generator: Any) -> Iterator[Any]:
        async def following() -> list[Any]:
            async for each in generator:
                return [each]
            return []

        try:
            while found := self._runner.run(following()):
                yield found[0]
        finally:
            self._runner.run(generator.aclose())


@pytest.fixture(params=["blocking", "aio"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    """What runs the asyncio client; None: the test is of the blocking one."""
    if request.param == "blocking":
        yield None
        return
    with asyncio.Runner() as found:
        yield found


def opened(runner: asyncio.Runner | None, blocking: Callable[..., Any], awaited: Callable[..., Any]) -> Any:
    async def inside(*arguments: Any, **keywords: Any) -> Any:
        return awaited(*arguments, **keywords)

    if runner is None:
        return blocking
    return lambda *arguments, **keywords: InLoop(runner.run(inside(*arguments, **keywords)), runner)


@pytest.fixture
def client_of(runner: asyncio.Runner | None) -> Any:
    """`Client` of the one kind or the other."""
    return opened(runner, chainrule.Client, AioClient)


@pytest.fixture
def connect(runner: asyncio.Runner | None) -> Any:
    """`connect` of the one kind or the other."""
    return opened(runner, chainrule.connect, aio.connect)
