"""What commands, files and events give back, and how arguments are written in requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, Union

from . import models
from .decode import decode
from .errors import ExecError
from .models import CodeError, CodeResult

#: Text for the shell, or a program and its arguments.
Command = Union[str, Sequence[str]]
#: Seconds, a `timedelta`, or text such as `90s` or `1h30m`.
Duration = Union[str, float, timedelta]
#: `SIGINT`, `INT` or a number.
Signal = Union[str, int]


@dataclass(frozen=True)
class ExecResult:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str
    #: Number of the signal that ended it.
    signal: int | None
    #: `out-of-memory`: it ended because the sandbox's memory had run out.
    reason: str | None
    #: The server keeps a limited amount of output; `stream` and `spawn` have no such limit.
    truncated: bool
    #: For example `12.3ms`.
    duration: str


@dataclass(frozen=True)
class RunResult(ExecResult):
    """The same, of a command in a sandbox of its own."""

    #: What `collect` names, by path.
    files: dict[str, bytes]
    #: What `collect` names and was not there.
    missing: list[str]
    #: Of the sandbox, which is gone.
    sandbox_id: str
    #: Which way its machine started (`path`), and in how many ms (`total_ms`).
    boot: dict[str, Any] | None


R = TypeVar("R", bound=ExecResult)


@dataclass(frozen=True)
class Output:
    """A piece of a streamed command's output."""

    stream: Literal["stdout", "stderr"]
    text: str
    #: When it was written, ISO 8601, where that was asked for.
    time: str | None = None


@dataclass(frozen=True)
class CodeEnd:
    """A piece of code has ended."""

    execution_count: int


@dataclass(frozen=True)
class CodeExecution:
    """What a piece of code did."""

    #: What was displayed, and the value of the last expression, in every form that they have.
    results: list[CodeResult]
    stdout: str
    stderr: str
    #: What the code has failed with.
    error: CodeError | None
    execution_count: int

    @property
    def text(self) -> str | None:
        """The value of the last expression."""
        return next((each.text for each in self.results if each.main), None)


@dataclass(frozen=True)
class Exit:
    """How a command ended: 128 + n when signal n ended it. `reason`: exited, signaled, timeout, cancelled, ..."""

    exit_code: int
    signal: int | None
    reason: str


@dataclass(frozen=True)
class Chunk:
    """A piece of a process's output, as it came."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True)
class FileChange:
    """`to`: where it went, of a move."""

    change: str
    path: str
    to: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened: `id` continues from there, `type` is for example `sandbox.running`."""

    id: str
    type: str
    timestamp: str
    sandbox_id: str | None
    data: dict[str, Any] | None


def duration_text(value: Duration | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return f"{seconds * 1000:.6f}ms"


def signal_text(value: Signal | None) -> str | None:
    return None if value is None else str(value)


def command_fields(command: Command) -> dict[str, Any]:
    if isinstance(command, str):
        return {"command": command}
    program, *args = command
    return {"command": program, "args": args, "mode": "argv"}


def checked(command: Command, result: R, check: bool) -> R:
    """An exit code other than 0 is an error, if `check`."""
    if check and result.exit_code != 0:
        name = command if isinstance(command, str) else " ".join(command)
        raise ExecError(name, result.exit_code, result.stdout, result.stderr)
    return result


def mode_text(mode: int | str | None) -> str | None:
    return f"{mode:04o}" if isinstance(mode, int) else mode


def without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def query(**fields: Any) -> dict[str, str]:
    """Of a URL: what is not given is not there, and true is `true`."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in fields.items()
        if value is not None and value is not False
    }


def run_fields(
    command: Command,
    env: Mapping[str, str] | None,
    workdir: str | None,
    user: str | None,
    timeout: Duration | None,
    stop_signal: Signal | None,
) -> dict[str, Any]:
    return without_none(
        **command_fields(command),
        env=env,
        workdir=workdir,
        user=user,
        timeout=duration_text(timeout),
        stop_signal=signal_text(stop_signal),
    )


def stdin_fields(stdin: str | bytes | None) -> dict[str, Any]:
    if isinstance(stdin, bytes):
        return {"stdin": base64.b64encode(stdin).decode(), "encoding": "base64"}
    return without_none(stdin=stdin)


def exec_result(reply: dict[str, Any]) -> ExecResult:
    ended = decode(models.ExecResult, reply)

    def text(value: str) -> str:
        return base64.b64decode(value).decode(errors="replace") if ended.encoding == "base64" else value

    return ExecResult(
        exit_code=ended.exit_code,
        stdout=text(ended.stdout),
        stderr=text(ended.stderr),
        signal=ended.signal,
        reason=ended.reason,
        truncated=ended.truncated is True,
        duration=ended.duration,
    )


def run_result(reply: dict[str, Any]) -> RunResult:
    ended = decode(models.RunResult, reply)
    return RunResult(
        **vars(exec_result(reply)),
        files={path: base64.b64decode(content) for path, content in ended.files.items()},
        missing=ended.missing,
        sandbox_id=ended.sandbox_id,
        boot=ended.boot,
    )


def files_field(files: Mapping[str, str | bytes]) -> list[dict[str, str]]:
    def one(path: str, content: str | bytes) -> dict[str, str]:
        if isinstance(content, bytes):
            return {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
        return {"path": path, "content": content}

    return [one(path, content) for path, content in files.items()]


def exit_of(frame: dict[str, Any]) -> Exit:
    return Exit(int(frame["exit_code"]), frame.get("signal"), str(frame.get("reason", "exited")))


def event_of(frame: dict[str, Any]) -> Event:
    return Event(
        str(frame["id"]), str(frame["type"]), str(frame["timestamp"]), frame.get("sandbox_id"), frame.get("data")
    )
