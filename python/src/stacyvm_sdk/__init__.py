"""Client for the StacyVM server, synchronous (`Client`, `Sandbox`) and asynchronous (`AsyncClient`, `AsyncSandbox`)."""

from . import models
from ._async.client import AsyncClient
from ._async.process import AsyncProcess
from ._async.sandbox import AsyncSandbox
from ._sync.client import Client
from ._sync.process import Process
from ._sync.sandbox import Sandbox
from .errors import (
    AuthError,
    ConflictError,
    ConnectionError,
    ExecError,
    InvalidError,
    LimitError,
    NotFoundError,
    ReplyError,
    StacyError,
    TimeoutError,
)
from .models import CodeContext, CodeError, CodeResult
from .values import Chunk, CodeEnd, CodeExecution, Command, Duration, Event, ExecResult, Exit, FileChange, Output, RunResult

__all__ = [
    "AsyncClient",
    "AsyncProcess",
    "AsyncSandbox",
    "AuthError",
    "Chunk",
    "CodeContext",
    "CodeEnd",
    "CodeError",
    "CodeExecution",
    "CodeResult",
    "Client",
    "Command",
    "ConflictError",
    "ConnectionError",
    "Duration",
    "Event",
    "ExecError",
    "ExecResult",
    "Exit",
    "FileChange",
    "InvalidError",
    "LimitError",
    "NotFoundError",
    "Output",
    "Process",
    "ReplyError",
    "RunResult",
    "Sandbox",
    "StacyError",
    "TimeoutError",
    "models",
]
