# Made by scripts/generate-sdk.ts; not edited by hand.
"""One sandbox. `with Sandbox.create(image="stacyvm/python") as sandbox:` destroys it at the end of the block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from .code import CodeContexts, stream_code
from .files import Files
from .ports import Port
from .process import Process, start_frame
from .transport import LONG, Transport, lines_of, segment


class Sandbox:
    def __init__(self, transport: Transport, info: Info, *, owns_transport: bool = False) -> None:
        """Use `create`, or a client."""
        self._transport = transport
        self._owns_transport = owns_transport
        self._path = f"/sandboxes/{segment(info.id)}"
        self.id = info.id
        #: As it was at the last answer; `refresh` asks again.
        self.info = info
        self.files = Files(transport, info.id)
        #: What code runs in (`run_code`).
        self.contexts = CodeContexts(transport, self._path)

    @classmethod
    def create(
        cls, *, url: str | None = None, api_key: str | None = None, user_id: str | None = None, **options: Any
    ) -> Sandbox:
        """A new sandbox with a connection of its own. `options` are those of the client's `create`."""
        transport = Transport(url, api_key, user_id)
        try:
            return create_sandbox(transport, owns_transport=True, **options)
        except BaseException:
            transport.close()
            raise

    @property
    def name(self) -> str | None:
        """What its owner calls it."""
        return self.info.name

    @property
    def state(self) -> str:
        return self.info.state

    def refresh(self) -> Info:
        return self._update("GET", "")

    # Commands

    def exec(
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
        reply = self._transport.call("POST", f"{self._path}/exec", body=body, timeout=LONG)
        return checked(command, exec_result(reply), check)

    def stream(
        self,
        command: Command,
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
    ) -> Iterator[Output | Exit]:
        """Output as it comes, then the exit. Leaving the loop ends the command."""
        fields = run_fields(command, env, workdir, user, timeout, stop_signal)
        body = {**fields, **stdin_fields(stdin), "stream": True}
        ended = None
        with self._transport.open("POST", f"{self._path}/exec", body=body, timeout=LONG) as response:
            for line in lines_of(response):
                if line.get("type") == "exit":
                    ended = exit_of(line)
                elif line.get("type") is None and line.get("data"):
                    yield Output(line["stream"], line["data"])
        if ended is None:
            raise ConnectionError("CONNECTION", "the stream ended before the command did")
        yield ended

    # Code

    def run_code(
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
        for event in events:
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
    ) -> Iterator[Output | CodeResult | CodeError | CodeEnd]:
        """The same as it comes. Leaving the loop interrupts the code."""
        return stream_code(self._transport, self._path, code, language, context, env, timeout)

    def spawn(
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
    ) -> Process:
        """Starts a command with stdin, signals and, if asked for, a terminal of (rows, columns)."""
        first = start_frame(command, env, workdir, user, timeout, stop_signal, pty, term)
        return Process.open(self._transport, self.id, first, stdin)

    def shell(self, *, pty: tuple[int, int] = (24, 80), term: str | None = None) -> Process:
        """The user's shell in a terminal."""
        first = start_frame(None, None, None, None, None, None, pty, term)
        return Process.open(self._transport, self.id, first, True)

    def start(
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
        return str((self._transport.call("POST", f"{self._path}/processes", body=body))["id"])

    def output(
        self, process: str = "main", *, follow: bool = False, tail: int | None = None, timestamps: bool = False
    ) -> Iterator[Output]:
        """
        What a command has written, kept over pause, suspend, fork and restarts of the server. `main`: the one that was last started
        to go on by itself (`start`). `follow`: until it has ended; `tail`: so many lines of what is there; `timestamps`: each piece
        says as `time` when it was written.
        """
        path = f"{self._path}/processes/{segment(process)}/output"
        params = query(follow="true" if follow else "false", tail=tail, timestamps=timestamps)
        with self._transport.open("GET", path, params=params, timeout=LONG) as response:
            for line in lines_of(response):
                if line.get("type") is None:
                    yield Output(line["stream"], line["data"], line.get("time"))

    def attach(self, process: str) -> Process:
        """Connects to a command that runs: recent output first."""
        first = {"type": "attach", "process_id": process}
        return Process.open(self._transport, self.id, first, True)

    def processes(self) -> list[ProcessInfo]:
        return decode(list[ProcessInfo], self._transport.call("GET", f"{self._path}/processes"))

    def kill(self, process: str, signal: Signal = "SIGTERM") -> None:
        path = f"{self._path}/processes/{segment(process)}/signal"
        self._transport.call("POST", path, body={"signal": signal_text(signal)})

    def history(self, limit: int = 100) -> list[ExecRecord]:
        """Commands that ran, newest first."""
        reply = self._transport.call("GET", f"{self._path}/history", params=query(limit=limit))
        return decode(list[ExecRecord], reply)

    # Network

    def port(self, port: int) -> Port:
        """A port of the guest."""
        return Port(self._transport, self.id, port, self.info.preview_domain)

    def network(self) -> SandboxNetwork:
        """Hosts that it may connect to, and how that went so far."""
        return decode(SandboxNetwork, self._transport.call("GET", f"{self._path}/network"))

    def allow(self, hosts: list[str]) -> Info:
        """Other hosts that it may connect to, also for connections that are open; none: `[]`."""
        return self._update("PUT", "/network", {"allowed_hosts": hosts})

    # Its state

    def pause(self) -> Info:
        """Stops its processors; memory stays."""
        return self._update("POST", "/pause")

    def suspend(self) -> Info:
        """Saves it to disk and frees its memory."""
        return self._update("POST", "/suspend")

    def resume(self) -> Info:
        """From a pause or from disk."""
        return self._update("POST", "/resume")

    def move(self, to: str | None = None) -> MovedSandbox:
        """Has it go on at another node of the fleet (`to`: its name or id; default: where it fits best); by administrators."""
        body = {} if to is None else {"to": to}
        reply = self._transport.call("POST", f"{self._path}/move", body=body, timeout=LONG)
        return decode(MovedSandbox, reply)

    def extend(self, ttl: Duration) -> Info:
        """New expiry: now and this time."""
        return self._update("POST", "/extend", {"ttl": duration_text(ttl)})

    def attach_volume(self, name: str, path: str, *, read_only: bool = False) -> Info:
        """A volume, by name, at `path` from now on: in a free place of its machine (`volume_slots` of its start)."""
        return self._update("POST", "/volumes", {"name": name, "path": path, "read_only": read_only})

    def detach_volume(self, name: str, *, force: bool = False) -> Info:
        """While no program holds it; with `force` they lose it, and its place cannot be used again."""
        forced = "true" if force else "false"
        return self._update("DELETE", f"/volumes/{segment(name)}?force={forced}")

    def fork(
        self,
        count: int = 1,
        *,
        name: str | None = None,
        ttl: Duration | None = None,
        metadata: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        volumes: Literal["clone", "read_only", "none"] | None = None,
        mounts: Literal["read_only", "copy_on_write", "none"] | None = None,
    ) -> list[Sandbox]:
        """
        Copies of it, memory and running programs included; each is its own from then on. `name`: of a single copy. `volumes`: what a copy
        gets of volumes that this one writes to; without it a clone of each. `mounts`: what it gets of directories of the host; without it, it
        reads them; with "copy_on_write" what it writes stays in it.
        """
        text = duration_text(ttl)
        body = without_none(count=count, name=name, ttl=text, metadata=metadata, env=env, volumes=volumes, mounts=mounts)
        reply = decode(Fork, self._transport.call("POST", f"{self._path}/fork", body=body, timeout=LONG))
        return [Sandbox(self._transport, info) for info in reply.sandboxes]

    def checkpoint(
        self, name: str | None = None, *, volumes: Literal["snapshot", "refuse"] | None = None
    ) -> Checkpoint:
        """
        Saves it as it is; it goes on. `create(checkpoint=id)` starts from there, `restore(id)` goes back to it. `volumes`: where it has
        some, a snapshot of each is saved with it (without this, too), or it is refused.
        """
        body = without_none(name=name, volumes=volumes)
        reply = self._transport.call("POST", f"{self._path}/checkpoints", body=body, timeout=LONG)
        return decode(Checkpoint, reply)

    def checkpoints(self) -> list[Checkpoint]:
        return decode(list[Checkpoint], self._transport.call("GET", f"{self._path}/checkpoints"))

    def restore(self, checkpoint: str) -> Info:
        """Goes back to one of its checkpoints, in place; what came after that is gone."""
        return self._update("POST", "/restore", {"checkpoint": checkpoint})

    def logs(self, lines: int = 100) -> list[str]:
        """The last lines of its console."""
        return decode(list[str], self._transport.call("GET", f"{self._path}/logs", params=query(lines=lines)))

    def stats(self) -> SandboxStats:
        return decode(SandboxStats, self._transport.call("GET", f"{self._path}/stats"))

    def destroy(self) -> None:
        """Ends it and removes everything of it. Again is no error."""
        self._transport.call("DELETE", self._path)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.destroy()
        finally:
            if self._owns_transport:
                self._transport.close()

    def _update(self, method: str, below: str, body: dict[str, Any] | None = None) -> Info:
        self.info = decode(Info, self._transport.call(method, f"{self._path}{below}", body=body, timeout=LONG))
        return self.info

    def __repr__(self) -> str:
        return f"<Sandbox {self.id} {self.info.image} {self.state}>"


def create_sandbox(
    transport: Transport,
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
) -> Sandbox:
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
    info = decode(Info, transport.call("POST", "/sandboxes", body=body, timeout=LONG))
    return Sandbox(transport, info, owns_transport=owns_transport)
