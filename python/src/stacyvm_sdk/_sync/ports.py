# Made by scripts/generate-sdk.ts; not edited by hand.
"""A TCP port inside a sandbox: HTTP through the server, or a raw connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..errors import error_in_frame
from .transport import Transport, segment


class Tunnel:
    """Bytes in both directions: `for part in tunnel`, `send`; `send_eof` ends this side alone."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def send(self, data: bytes) -> None:
        if data:  # an empty frame is this side's end
            self._socket.send(data)

    def send_eof(self) -> None:
        """Nothing more comes from this side; the program's answer still does."""
        self._socket.send(b"")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                frame = self._socket.recv()
            except ConnectionClosed:
                return
            if isinstance(frame, str):  # the only text is the server's error: nobody listens there
                raise error_in_frame(json.loads(frame))
            yield frame

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Port:
    def __init__(self, transport: Transport, sandbox: str, port: int, domain: str) -> None:
        self.port = port
        self._transport = transport
        self._sandbox = sandbox
        server = urlsplit(transport.url)
        own = "" if server.port is None or ":" in domain else f":{server.port}"
        #: For a browser: `http://{port}-{id}.{domain}`, when the server's preview domain leads to it.
        self.preview_url = f"{server.scheme}://{port}-{sandbox}.{domain}{own}"

    def request(self, method: str, path: str = "/", **options: Any) -> httpx.Response:
        """An HTTP request to the program that listens on the port; `options` are those of httpx."""
        below = path if path.startswith("/") else f"/{path}"
        address = self._transport.address(f"/sandboxes/{segment(self._sandbox)}/ports/{self.port}{below}")
        with self._transport._guarded(None):
            return self._transport.http.request(method, address, **options)

    def connect(self) -> Tunnel:
        """A TCP connection."""
        return Tunnel(self._transport.socket(f"/sandboxes/{segment(self._sandbox)}/tunnel/{self.port}"))
