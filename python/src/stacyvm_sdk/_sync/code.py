# Made by scripts/generate-sdk.ts; not edited by hand.
"""The code interpreter of a sandbox: code with state between calls, in contexts that know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..decode import decode
from ..errors import ConnectionError
from ..models import CodeContext, CodeError, CodeResult
from ..values import CodeEnd, Duration, Output, duration_text, without_none
from .transport import LONG, Transport, lines_of, segment


class CodeContexts:
    """Contexts of one sandbox."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = f"{path}/contexts"

    def list(self) -> list[CodeContext]:
        """Oldest first."""
        return decode(list[CodeContext], self._transport.call("GET", self._path))

    def create(
        self,
        language: str | None = None,
        *,
        workdir: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CodeContext:
        body = without_none(language=language, workdir=workdir, user=user, env=env)
        return decode(CodeContext, self._transport.call("POST", self._path, body=body, timeout=LONG))

    def restart(self, context: str | CodeContext) -> CodeContext:
        """The same, without its state."""
        path = f"{self._path}/{segment(_id_of(context))}/restart"
        return decode(CodeContext, self._transport.call("POST", path, timeout=LONG))

    def remove(self, context: str | CodeContext) -> None:
        self._transport.call("DELETE", f"{self._path}/{segment(_id_of(context))}")


def stream_code(
    transport: Transport,
    path: str,
    code: str,
    language: str | None,
    context: str | CodeContext | None,
    env: Mapping[str, str] | None,
    timeout: Duration | None,
) -> Iterator[Output | CodeResult | CodeError | CodeEnd]:
    named = None if context is None else _id_of(context)
    body: dict[str, Any] = without_none(
        code=code, language=language, context=named, env=env, timeout=duration_text(timeout), stream=True
    )
    ended = False
    with transport.open("POST", f"{path}/code", body=body, timeout=LONG) as response:
        for line in lines_of(response):
            kind = line.pop("type", None)
            if kind in ("stdout", "stderr"):
                yield Output(kind, line["text"])
            elif kind == "result":
                yield decode(CodeResult, line)
            elif kind == "error":
                yield decode(CodeError, line)
            elif kind == "end":
                ended = True
                yield CodeEnd(int(line["execution_count"]))
    if not ended:
        raise ConnectionError("CONNECTION", "the stream ended before the code did")


def _id_of(context: str | CodeContext) -> str:
    return context if isinstance(context, str) else context.id
