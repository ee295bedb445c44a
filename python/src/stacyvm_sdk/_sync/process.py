# Made by scripts/generate-sdk.ts; not edited by hand.
"""A command that runs: its output as it comes, its stdin, signals, terminal size, and how it ended."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from websockets.sync.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..errors import ConflictError, ConnectionError, StacyError, error_in_frame
from ..values import Chunk, Command, Duration, Exit, Signal, command_fields, duration_text, exit_of, without_none
from .transport import Transport, segment


class Process:
    """Read its output by one loop only: `for chunk in process`, or `process.text()`."""

    def __init__(self, socket: ClientConnection, started: dict[str, Any]) -> None:
        self.id: str = started["process_id"]
        #: In the guest.
        self.pid: int = started["pid"]
        self._socket = socket
        self._exit: Exit | None = None
        self._failure: StacyError | None = None
        self._closed = False

    @classmethod
    def open(cls, transport: Transport, sandbox: str, first: dict[str, Any], stdin: bool) -> Process:
        socket = transport.socket(f"/sandboxes/{segment(sandbox)}/exec/ws")
        try:
            socket.send(json.dumps({**first, "binary": True}))
            if not stdin:
                socket.send(json.dumps({"type": "stdin_close"}))
            answer = json.loads(socket.recv())
            if answer.get("type") != "started":
                raise error_in_frame(answer)
            return cls(socket, answer)
        except ConnectionClosed as error:
            raise ConnectionError("CONNECTION", "the connection to the command broke off") from error
        except BaseException:
            socket.close()
            raise

    def __iter__(self) -> Iterator[Chunk]:
        """Output of both streams in the order in which it came."""
        while self._exit is None and not self._closed:
            try:
                frame = self._socket.recv()
            except ConnectionClosed as error:
                if self._closed:
                    return
                self._failure = self._failure or ConnectionError(
                    "CONNECTION", "the connection to the command broke off"
                )
                raise self._failure from error
            if isinstance(frame, bytes):
                yield Chunk("stderr" if frame[0] == 2 else "stdout", frame[1:])
                continue
            message = json.loads(frame)
            if message.get("type") == "exit":
                self._exit = exit_of(message)
                self._socket.close()
            elif message.get("type") == "error":
                self._failure = error_in_frame(message)
                self._socket.close()
                raise self._failure

    def text(self, stream: Literal["stdout", "stderr"] | None = None) -> Iterator[str]:
        """Output as text, piece by piece; characters that are cut between pieces stay whole."""
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        for chunk in self.__iter__():
            if stream is None or chunk.stream == stream:
                text = decoders[chunk.stream].decode(chunk.data)
                if text:
                    yield text

    def wait(self) -> Exit:
        """How it ended. Output that nobody reads is dropped meanwhile."""
        for _ in self.__iter__():
            pass
        if self._exit is None:
            raise self._failure or ConflictError("CONFLICT", f"process {self.id} was let go")
        return self._exit

    def write(self, data: str | bytes) -> None:
        """Waits when the command takes its input slowly."""
        self._send(data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """The end of its standard input."""
        self._send(json.dumps({"type": "stdin_close"}))

    def kill(self, signal: Signal = "SIGTERM") -> None:
        """A signal to its process group."""
        self._send(json.dumps({"type": "signal", "signal": signal}))

    def resize(self, rows: int, cols: int) -> None:
        self._send(json.dumps({"type": "resize", "rows": rows, "cols": cols}))

    def detach(self) -> None:
        """Lets go of it: it runs on, and `sandbox.attach(id)` comes back to it."""
        self._send(json.dumps({"type": "detach"}))
        self.close()

    def close(self) -> None:
        """Ends it if it still runs."""
        self._closed = True
        self._socket.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, frame: str | bytes) -> None:
        try:
            self._socket.send(frame)
        except ConnectionClosed as error:
            raise ConflictError("CONFLICT", f"process {self.id} has ended") from error


def start_frame(
    command: Command | None,
    env: Mapping[str, str] | None,
    workdir: str | None,
    user: str | None,
    timeout: Duration | None,
    stop_signal: Signal | None,
    pty: bool | tuple[int, int],
    term: str | None,
) -> dict[str, Any]:
    size = {} if isinstance(pty, bool) else {"rows": pty[0], "cols": pty[1]}
    return without_none(
        type="start",
        **({} if command is None else command_fields(command)),
        env=env,
        workdir=workdir,
        user=user,
        timeout=duration_text(timeout),
        stop_signal=stop_signal,
        pty=pty is not False,
        term=term,
        **size,
    )
