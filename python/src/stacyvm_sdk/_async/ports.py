"""A TCP port inside a sandbox: HTTP through the server, or a raw connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..errors import error_in_frame
from .transport import AsyncTransport, segment


class AsyncTunnel:
    """Bytes in both directions: `async for part in tunnel`, `send`; `send_eof` ends this side alone."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        if data:  # an empty frame is this side's end
            await self._socket.send(data)

    async def send_eof(self) -> None:
        """Nothing more comes from this side; the program's answer still does."""
        await self._socket.send(b"")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                frame = await self._socket.recv()
            except ConnectionClosed:
                return
            if isinstance(frame, str):  # the only text is the server's error: nobody listens there
                raise error_in_frame(json.loads(frame))
            yield frame

    async def aclose(self) -> None:
        await self._socket.close()

    async def __aenter__(self) -> AsyncTunnel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncPort:
    def __init__(self, transport: AsyncTransport, sandbox: str, port: int, domain: str) -> None:
        self.port = port
        self._transport = transport
        self._sandbox = sandbox
        server = urlsplit(transport.url)
        own = "" if server.port is None or ":" in domain else f":{server.port}"
        #: For a browser: `http://{port}-{id}.{domain}`, when the server's preview domain leads to it.
        self.preview_url = f"{server.scheme}://{port}-{sandbox}.{domain}{own}"

    async def request(self, method: str, path: str = "/", **options: Any) -> httpx.Response:
        """An HTTP request to the program that listens on the port; `options` are those of httpx."""
        below = path if path.startswith("/") else f"/{path}"
        address = self._transport.address(f"/sandboxes/{segment(self._sandbox)}/ports/{self.port}{below}")
        with self._transport._guarded(None):
            return await self._transport.http.request(method, address, **options)

    async def connect(self) -> AsyncTunnel:
        """A TCP connection."""
        return AsyncTunnel(await self._transport.socket(f"/sandboxes/{segment(self._sandbox)}/tunnel/{self.port}"))
