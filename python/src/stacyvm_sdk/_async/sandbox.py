"""One sandbox. `async with await AsyncSandbox.create(image="stacyvm/python") as sandbox:` destroys it at the end of the block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from ..decode import decode
from ..errors import ConnectionError
from ..models import (
    Checkpoint,
    CodeContext,
    CodeError,
    CodeResult,
    ExecRecord,
    Fork,
    MovedSandbox,
    SandboxNetwork,
    SandboxStats,
)
from ..models import Process as ProcessInfo
from ..models import Sandbox as Info
from ..values import (
    CodeEnd,
    CodeExecution,
    Command,
    Duration,
    ExecResult,
    Exit,
    Output,
    Signal,
    checked,
    duration_text,
    exec_result,
    exit_of,
    query,
    run_fields,
    signal_text,
    stdin_fields,
    without_none,
)
from .code import AsyncCodeContexts, stream_code
from .files import AsyncFiles
from .ports import AsyncPort
from .process import AsyncProcess, start_frame
from .transport import LONG, AsyncTransport, lines_of, segment


class AsyncSandbox:
    def __init__(self, transport: AsyncTransport, info: Info, *, owns_transport: bool = False) -> None:
        """Use `create`, or a client."""
        self._transport = transport
        self._owns_transport = owns_transport
        self._path = f"/sandboxes/{segment(info.id)}"
        self.id = info.id
        #: As it was at the last answer; `refresh` asks again.
        self.info = info
        self.files = AsyncFiles(transport, info.id)
        #: What code runs in (`run_code`).
        self.contexts = AsyncCodeContexts(transport, self._path)

    @classmethod
    async def create(
        cls, *, url: str | None = None, api_key: str | None = None, user_id: str | None = None, **options: Any
    ) -> AsyncSandbox:
        """A new sandbox with a connection of its own. `options` are those of the client's `create`."""
        transport = AsyncTransport(url, api_key, user_id)
        try:
            return await create_sandbox(transport, owns_transport=True, **options)
        except BaseException:
            await transport.aclose()
            raise

    @property
    def name(self) -> str | None:
        """What its owner calls it."""
        return self.info.name

    @property
    def state(self) -> str:
        return self.info.state

    async def refresh(self) -> Info:
        return await self._update("GET", "")

    # Commands

    async def exec(
        self,
        command: Command,
        *,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
        check: bool = False,
    ) -> ExecResult:
        """Runs a command to its end. A non-zero exit code is no error, unless `check`."""
        fields = run_fields(command, env, workdir, user, timeout, stop_signal)
        body = {**fields, **stdin_fields(stdin)}
        reply = await self._transport.call("POST", f"{self._path}/exec", body=body, timeout=LONG)
        return checked(command, exec_result(reply), check)

    async def stream(
        self,
        command: Command,
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
    ) -> AsyncIterator[Output | Exit]:
        """Output as it comes, then the exit. Leaving the loop ends the command."""
        fields = run_fields(command, env, workdir, user, timeout, stop_signal)
        body = {**fields, **stdin_fields(stdin), "stream": True}
        ended = None
        async with self._transport.open("POST", f"{self._path}/exec", body=body, timeout=LONG) as response:
            async for line in lines_of(response):
                if line.get("type") == "exit":
                    ended = exit_of(line)
                elif line.get("type") is None and line.get("data"):
                    yield Output(line["stream"], line["data"])
        if ended is None:
            raise ConnectionError("CONNECTION", "the stream ended before the command did")
        yield ended

    # Code

    async def run_code(
        self,
        code: str,
        *,
        language: str | None = None,
        context: str | CodeContext | None = None,
        env: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> CodeExecution:
        """Runs code that keeps its state from one call to the next. What fails in the code is in `error`, and not raised."""
        results: list[CodeResult] = []
        output = {"stdout": "", "stderr": ""}
        error = None
        count = 0
        events = self.stream_code(code, language=language, context=context, env=env, timeout=timeout)
        async for event in events:
            if isinstance(event, Output):
                output[event.stream] += event.text
            elif isinstance(event, CodeResult):
                results.append(event)
            elif isinstance(event, CodeError):
                error = event
            else:
                count = event.execution_count
        return CodeExecution(results, output["stdout"], output["stderr"], error, count)

    def stream_code(
        self,
        code: str,
        *,
        language: str | None = None,
        context: str | CodeContext | None = None,
        env: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> AsyncIterator[Output | CodeResult | CodeError | CodeEnd]:
        """The same as it comes. Leaving the loop interrupts the code."""
        return stream_code(self._transport, self._path, code, language, context, env, timeout)

    async def spawn(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
        pty: bool | tuple[int, int] = False,
        term: str | None = None,
        stdin: bool = True,
    ) -> AsyncProcess:
        """Starts a command with stdin, signals and, if asked for, a terminal of (rows, columns)."""
        first = start_frame(command, env, workdir, user, timeout, stop_signal, pty, term)
        return await AsyncProcess.open(self._transport, self.id, first, stdin)

    async def shell(self, *, pty: tuple[int, int] = (24, 80), term: str | None = None) -> AsyncProcess:
        """The user's shell in a terminal."""
        first = start_frame(None, None, None, None, None, None, pty, term)
        return await AsyncProcess.open(self._transport, self.id, first, True)

    async def start(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
        pty: tuple[int, int] | None = None,
    ) -> str:
        """Starts a command that goes on without a connection. @returns its id, for `attach`"""
        body = run_fields(command, env, workdir, user, timeout, stop_signal)
        if pty is not None:
            body["pty"] = {"rows": pty[0], "cols": pty[1]}
        return str((await self._transport.call("POST", f"{self._path}/processes", body=body))["id"])

    async def output(
        self, process: str = "main", *, follow: bool = False, tail: int | None = None, timestamps: bool = False
    ) -> AsyncIterator[Output]:
        """
        What a command has written, kept over pause, suspend, fork and restarts of the server. `main`: the one that was last started
        to go on by itself (`start`). `follow`: until it has ended; `tail`: so many lines of what is there; `timestamps`: each piece
        says as `time` when it was written.
        """
        path = f"{self._path}/processes/{segment(process)}/output"
        params = query(follow="true" if follow else "false", tail=tail, timestamps=timestamps)
        async with self._transport.open("GET", path, params=params, timeout=LONG) as response:
            async for line in lines_of(response):
                if line.get("type") is None:
                    yield Output(line["stream"], line["data"], line.get("time"))

    async def attach(self, process: str) -> AsyncProcess:
        """Connects to a command that runs: recent output first."""
        first = {"type": "attach", "process_id": process}
        return await AsyncProcess.open(self._transport, self.id, first, True)

    async def processes(self) -> list[ProcessInfo]:
        return decode(list[ProcessInfo], await self._transport.call("GET", f"{self._path}/processes"))

    async def kill(self, process: str, signal: Signal = "SIGTERM") -> None:
        path = f"{self._path}/processes/{segment(process)}/signal"
        await self._transport.call("POST", path, body={"signal": signal_text(signal)})

    async def history(self, limit: int = 100) -> list[ExecRecord]:
        """Commands that ran, newest first."""
        reply = await self._transport.call("GET", f"{self._path}/history", params=query(limit=limit))
        return decode(list[ExecRecord], reply)

    # Network

    def port(self, port: int) -> AsyncPort:
        """A port of the guest."""
        return AsyncPort(self._transport, self.id, port, self.info.preview_domain)

    async def network(self) -> SandboxNetwork:
        """Hosts that it may connect to, and how that went so far."""
        return decode(SandboxNetwork, await self._transport.call("GET", f"{self._path}/network"))

    async def allow(self, hosts: list[str]) -> Info:
        """Other hosts that it may connect to, also for connections that are open; none: `[]`."""
        return await self._update("PUT", "/network", {"allowed_hosts": hosts})

    # Its state

    async def pause(self) -> Info:
        """Stops its processors; memory stays."""
        return await self._update("POST", "/pause")

    async def suspend(self) -> Info:
        """Saves it to disk and frees its memory."""
        return await self._update("POST", "/suspend")

    async def resume(self) -> Info:
        """From a pause or from disk."""
        return await self._update("POST", "/resume")

    async def move(self, to: str | None = None) -> MovedSandbox:
        """Has it go on at another node of the fleet (`to`: its name or id; default: where it fits best); by administrators."""
        body = {} if to is None else {"to": to}
        reply = await self._transport.call("POST", f"{self._path}/move", body=body, timeout=LONG)
        return decode(MovedSandbox, reply)

    async def extend(self, ttl: Duration) -> Info:
        """New expiry: now and this time."""
        return await self._update("POST", "/extend", {"ttl": duration_text(ttl)})

    async def attach_volume(self, name: str, path: str, *, read_only: bool = False) -> Info:
        """A volume, by name, at `path` from now on: in a free place of its machine (`volume_slots` of its start)."""
        return await self._update("POST", "/volumes", {"name": name, "path": path, "read_only": read_only})

    async def detach_volume(self, name: str, *, force: bool = False) -> Info:
        """While no program holds it; with `force` they lose it, and its place cannot be used again."""
        forced = "true" if force else "false"
        return await self._update("DELETE", f"/volumes/{segment(name)}?force={forced}")

    async def fork(
        self,
        count: int = 1,
        *,
        name: str | None = None,
        ttl: Duration | None = None,
        metadata: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        volumes: Literal["clone", "read_only", "none"] | None = None,
        mounts: Literal["read_only", "copy_on_write", "none"] | None = None,
    ) -> list[AsyncSandbox]:
        """
        Copies of it, memory and running programs included; each is its own from then on. `name`: of a single copy. `volumes`: what a copy
        gets of volumes that this one writes to; without it a clone of each. `mounts`: what it gets of directories of the host; without it, it
        reads them; with "copy_on_write" what it writes stays in it.
        """
        text = duration_text(ttl)
        body = without_none(count=count, name=name, ttl=text, metadata=metadata, env=env, volumes=volumes, mounts=mounts)
        reply = decode(Fork, await self._transport.call("POST", f"{self._path}/fork", body=body, timeout=LONG))
        return [AsyncSandbox(self._transport, info) for info in reply.sandboxes]

    async def checkpoint(
        self, name: str | None = None, *, volumes: Literal["snapshot", "refuse"] | None = None
    ) -> Checkpoint:
        """
        Saves it as it is; it goes on. `create(checkpoint=id)` starts from there, `restore(id)` goes back to it. `volumes`: where it has
        some, a snapshot of each is saved with it (without this, too), or it is refused.
        """
        body = without_none(name=name, volumes=volumes)
        reply = await self._transport.call("POST", f"{self._path}/checkpoints", body=body, timeout=LONG)
        return decode(Checkpoint, reply)

    async def checkpoints(self) -> list[Checkpoint]:
        return decode(list[Checkpoint], await self._transport.call("GET", f"{self._path}/checkpoints"))

    async def restore(self, checkpoint: str) -> Info:
        """Goes back to one of its checkpoints, in place; what came after that is gone."""
        return await self._update("POST", "/restore", {"checkpoint": checkpoint})

    async def logs(self, lines: int = 100) -> list[str]:
        """The last lines of its console."""
        return decode(list[str], await self._transport.call("GET", f"{self._path}/logs", params=query(lines=lines)))

    async def stats(self) -> SandboxStats:
        return decode(SandboxStats, await self._transport.call("GET", f"{self._path}/stats"))

    async def destroy(self) -> None:
        """Ends it and removes everything of it. Again is no error."""
        await self._transport.call("DELETE", self._path)

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.destroy()
        finally:
            if self._owns_transport:
                await self._transport.aclose()

    async def _update(self, method: str, below: str, body: dict[str, Any] | None = None) -> Info:
        self.info = decode(Info, await self._transport.call(method, f"{self._path}{below}", body=body, timeout=LONG))
        return self.info

    def __repr__(self) -> str:
        return f"<AsyncSandbox {self.id} {self.info.image} {self.state}>"


async def create_sandbox(
    transport: AsyncTransport,
    *,
    name: str | None = None,
    image: str | None = None,
    template: str | None = None,
    checkpoint: str | None = None,
    memory_mb: int | None = None,
    vcpus: int | None = None,
    disk_mb: int | None = None,
    ttl: Duration | None = None,
    idle_timeout: Duration | None = None,
    idle_action: str | None = None,
    env: Mapping[str, str] | None = None,
    setup: list[str] | None = None,
    contexts: list[Mapping[str, str]] | None = None,
    metadata: Mapping[str, str] | None = None,
    allowed_hosts: list[str] | None = None,
    owner_id: str | None = None,
    provider: str | None = None,
    forkable: bool | None = None,
    owns_transport: bool = False,
) -> AsyncSandbox:
    body = without_none(
        name=name,
        image=image,
        template=template,
        checkpoint=checkpoint,
        memory_mb=memory_mb,
        vcpus=vcpus,
        disk_mb=disk_mb,
        ttl=duration_text(ttl),
        idle_timeout=duration_text(idle_timeout),
        idle_action=idle_action,
        env=env,
        setup=setup,
        contexts=contexts,
        metadata=metadata,
        allowed_hosts=allowed_hosts,
        owner_id=owner_id,
        provider=provider,
        forkable=forkable,
    )
    info = decode(Info, await transport.call("POST", "/sandboxes", body=body, timeout=LONG))
    return AsyncSandbox(transport, info, owns_transport=owns_transport)
