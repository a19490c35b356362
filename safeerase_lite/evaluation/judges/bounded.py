"""An HTTP client whose every request ends: all of it within a deadline, its reply within a size.

The deadlines of httpx are for one read each, so a server that drips a byte a second meets them all.
"""

import asyncio
from importlib import import_module

REPLY_BYTES = 1 << 20
PACKED = ("content-encoding", "content-length", "transfer-encoding")  # of a body that is unpacked


class TooLong(Exception):
    """A reply went on beyond `REPLY_BYTES`."""


def client(seconds: float, **how):
    """An asynchronous client as openai takes one; `how` as its own `DefaultAsyncHttpxClient`.

    A request that takes longer than that, head and body, ends as a time-out does, and so does a
    reply that is longer than `REPLY_BYTES`, its cause a `TooLong`.
    """
    import openai

    class Bounded(openai.DefaultAsyncHttpxClient):
        async def send(self, request, **options):
            try:
                async with asyncio.timeout(seconds):
                    return await _whole(await super().send(request, **options | {"stream": True}))
            except (TimeoutError, TooLong) as problem:
                http = import_module(type(request).__module__.partition(".")[0])  # httpx or httpx2
                raise http.ReadTimeout("no whole reply", request=request) from problem

    return Bounded(timeout=seconds, **how)


async def _whole(response):
    """The same response, read."""
    body = b""
    try:
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > REPLY_BYTES:
                raise TooLong
    finally:
        await response.aclose()
    headers = [pair for pair in response.headers.multi_items() if pair[0].lower() not in PACKED]
    return type(response)(
        response.status_code, headers=headers, content=body, request=response.request
    )
