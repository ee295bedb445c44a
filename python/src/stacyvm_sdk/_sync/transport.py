# Made by scripts/generate-sdk.ts; not edited by hand.
"""One server over HTTP and WebSockets: its address and key, time-outs, repetition of what is safe to repeat, and errors."""

from __future__ import annotations

import time
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from ..errors import ConnectionError, InvalidError, ReplyError, StacyError, TimeoutError, error_of
from ..local_key import key_of_file, local_key

DEFAULT_URL = "http://127.0.0.1:7423"
#: Spawns, commands, transfers: they end by themselves, or when the caller goes away.
LONG = None
_IDEMPOTENT = {"GET", "PUT", "DELETE"}
_TEMPORARY = {502, 503, 504}


class Transport:
    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 60.0,
        retries: int = 2,
        owner: str | None = None,
    ) -> None:
        self.url = (url or os.environ.get("STACYVM_URL") or DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InvalidError(
                "BAD_REQUEST", f'"{self.url}" is not the address of a server', hint="write it as http://host:7423"
            )
        given = api_key if api_key is not None else _from_environment()
        key = given if given is not None else local_key(self.url)
        # Another one may be there after the server has started anew.
        self._key_was_found = given is None
        self.headers: dict[str, str] = {}
        if key:
            self.headers["x-api-key"] = key
        if user_id:
            self.headers["x-user-id"] = user_id
        if owner:
            self.headers["x-owner"] = owner
        self.timeout = timeout
        self.retries = retries
        self.http = httpx.Client(headers=self.headers, timeout=timeout)

    def close(self) -> None:
        self.http.close()

    def address(self, path: str) -> str:
        return f"{self.url}/api/v1{path}"

    def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        content: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Any:
        """One operation. @returns its JSON"""
        with self.open(
            method, path, params=params, body=body, content=content, headers=headers, timeout=timeout
        ) as response:
            with self._guarded(timeout):
                response.read()
        try:
            return response.json()
        except ValueError:
            raise ReplyError(
                "BAD_REPLY",
                f"{self.url} did not answer with JSON",
                hint="is this the address of a StacyVM server?",
            ) from None

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        content: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Iterator[httpx.Response]:
        """The same, when the answer is a stream: it is there, and it is not an error."""
        address = self.address(path)
        # Names of files are bytes, as `os.fsdecode` gives them; httpx takes only what is UTF-8.
        if params:
            address += "?" + urlencode(params, quote_via=quote, errors="surrogateescape")
        if body is not None:
            content = json.dumps(body).encode()
            headers = {"content-type": "application/json", **(headers or {})}
        request = self.http.build_request(
            method,
            address,
            content=content,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=self.timeout),
        )
        reusable = not hasattr(content, "__next__") and not hasattr(content, "__anext__")
        repeatable = method in _IDEMPOTENT and reusable
        attempt = 0
        while True:
            wait = 0.1 * 2**attempt
            again = attempt < self.retries
            attempt += 1
            try:
                response = self.http.send(request, stream=True)
            except httpx.TimeoutException as error:
                raise TimeoutError("TIMEOUT", f"{self.url} did not answer within {timeout} s") from error
            except httpx.TransportError as error:
                # A POST may have reached the server: once more could mean twice.
                if repeatable and again:
                    time.sleep(wait)
                    continue
                raise self._broken(error) from error
            try:
                if response.is_success:
                    with self._guarded(timeout):
                        yield response
                    return
                if response.status_code == 401 and reusable and self._find_key_anew():
                    request.headers["x-api-key"] = self.headers["x-api-key"]
                    continue
                limited = response.status_code == 429 and response.headers.get("x-ratelimit-remaining") == "0"
                # What a rate limit turned away was never begun.
                if not (again and (limited or (repeatable and response.status_code in _TEMPORARY))):
                    response.read()
                    raise _problem(response)
                wait = min(10.0, float(response.headers.get("retry-after") or 0) or wait)
            finally:
                response.close()
            time.sleep(wait)

    def socket(self, path: str) -> ClientConnection:
        """An open WebSocket. @raises StacyError as an ordinary request to the same address would"""
        try:
            return connect(
                self.address(path).replace("http", "ws", 1),
                additional_headers=self.headers,
                compression=None,
                max_size=None,
                open_timeout=self.timeout,
            )
        except InvalidStatus as error:
            answer = error.response
            raise error_of(answer.status_code, _json(answer.body), answer.headers.get("x-request-id")) from error
        except (OSError, WebSocketException) as error:
            raise self._broken(error) from error

    def _find_key_anew(self) -> bool:
        """The key that was found is another server's by now: this one has left its own."""
        key = local_key(self.url) if self._key_was_found else None
        if key is None or key == self.headers.get("x-api-key"):
            return False
        self.headers["x-api-key"] = key
        self.http.headers["x-api-key"] = key
        return True

    def _guarded(self, timeout: float | None) -> _Guard:
        return _Guard(self, timeout)

    def _broken(self, error: Exception) -> StacyError:
        return ConnectionError(
            "CONNECTION",
            f"no connection to {self.url}: {error or type(error).__name__}",
            hint="is the server running? `stacyvm serve` starts one",
        )


class _Guard:
    """What breaks while an answer is read is one of our errors too."""

    def __init__(self, transport: Transport, timeout: float | None) -> None:
        self._transport = transport
        self._timeout = timeout

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, httpx.TimeoutException):
            raise TimeoutError("TIMEOUT", f"{self._transport.url} was silent for {self._timeout} s") from error
        if isinstance(error, httpx.TransportError):
            raise self._transport._broken(error) from error


def lines_of(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """JSON, one object a line."""
    for line in response.iter_lines():
        if line.strip():
            yield json.loads(line)


def server_sent(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The data of server-sent events; the server writes each as one line."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line[5:])


def segment(text: str) -> str:
    """A name in a path."""
    return quote(text, safe="")


def _from_environment() -> str | None:
    """@raises InvalidError when its file cannot be read: another key would be somebody else's"""
    try:
        return key_of_file() or os.environ.get("STACYVM_API_KEY") or None
    except ValueError as error:
        raise InvalidError("BAD_REQUEST", f"STACYVM_API_KEY_FILE: cannot read the key: {error}") from error


def _problem(response: httpx.Response) -> StacyError:
    return error_of(response.status_code, _json(response.content), response.headers.get("x-request-id"))


def _json(data: bytes | bytearray | None) -> Any:
    try:
        return json.loads(data or b"")
    except ValueError:
        return None
