"""What can go wrong, as types. Each error has the server's code, its words, and a hint where there is something to do."""

from __future__ import annotations

import builtins
from typing import Any


class StacyError(Exception):
    """`code` is the server's (`NOT_FOUND`, ...), or one of this package's: `CONNECTION`, `TIMEOUT`, `BAD_REPLY`."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        phase: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.code = code
        self.message = message
        self.status = status
        self.phase = phase
        self.hint = hint
        self.request_id = request_id


class NotFoundError(StacyError):
    """The sandbox, file, template, ... is not there, or not any more."""


class InvalidError(StacyError):
    """The request is wrong; nothing was changed."""


class AuthError(StacyError):
    """The key is missing, wrong, or may not do this."""


class ConflictError(StacyError):
    """In the wrong state for this, or there already."""


class LimitError(StacyError):
    """A quota, a rate or a size."""


class TimeoutError(StacyError, builtins.TimeoutError):
    """The command, or the call, took longer than was allowed."""


class ConnectionError(StacyError, builtins.ConnectionError):
    """No answer: nobody listens, the name is unknown, the connection broke."""


class ReplyError(StacyError):
    """The answer is not what the interface says: another version, or not a StacyVM at all."""


class ExecError(StacyError):
    """With `check=True`: the command ended with another exit code than 0."""

    def __init__(self, command: str, exit_code: int, stdout: str, stderr: str) -> None:
        last = stderr.rstrip().rsplit("\n", 1)[-1]
        super().__init__("EXEC_FAILED", f"`{command}` ended with exit code {exit_code}{last and ': ' + last}")
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


_BY_STATUS: dict[int, type[StacyError]] = {
    400: InvalidError,
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    408: TimeoutError,
    409: ConflictError,
    413: LimitError,
    416: InvalidError,
    429: LimitError,
    507: LimitError,
}

_BY_CODE = {
    "BAD_REQUEST": 400,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "TIMEOUT": 408,
    "CONFLICT": 409,
    "RESOURCE_LIMIT": 429,
    "NO_SPACE": 507,
}


def error_of(status: int, body: Any, request_id: str | None = None) -> StacyError:
    """The error that an answer with this status means. `body` is what the server wrote: `{code, message, phase?, remedy?}`."""
    problem = body if isinstance(body, dict) else {}

    def text(name: str) -> str | None:
        value = problem.get(name)
        return value if isinstance(value, str) and value else None

    hint = text("remedy")
    if hint is None and status == 401:
        hint = "set the key: api_key, or STACYVM_API_KEY"
    return _BY_STATUS.get(status, StacyError)(
        text("code") or f"HTTP_{status}",
        text("message") or text("error") or f"the server answered {status}",
        status=status,
        phase=text("phase"),
        hint=hint,
        request_id=text("request_id") or request_id,
    )


def error_in_frame(frame: dict[str, Any]) -> StacyError:
    """The same for an error that comes as a frame of a WebSocket, which has no status."""
    return error_of(_BY_CODE.get(str(frame.get("code")), 500), frame)
