"""A server: its sandboxes, templates, images, snapshots, checkpoints, events and numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any, List, Union

from ..decode import decode
from ..errors import ConnectionError, ReplyError, error_in_frame
from ..models import (
    Admission,
    Checkpoint,
    Doctor,
    EventHistory,
    FleetNode,
    Health,
    Identity,
    Image,
    Key,
    MadeKey,
    NodeDrain,
    OwnerQuota,
    PoolStatus,
    Provider,
    QuotaUsage,
    RemovedNode,
    SandboxStats,
    Secret,
    Snapshot,
    SnapshotGc,
    SystemSample,
    SystemStats,
    Template,
    Volume,
    VolumeUsage,
)
from ..models import Sandbox as Info
from ..values import (
    Command,
    Duration,
    Event,
    RunResult,
    Signal,
    checked,
    duration_text,
    event_of,
    files_field,
    query,
    run_fields,
    run_result,
    stdin_fields,
    without_none,
)
from .sandbox import AsyncSandbox, create_sandbox
from .transport import LONG, AsyncTransport, lines_of, segment, server_sent


class AsyncClient:
    """
    The server is `STACYVM_URL` and its key `STACYVM_API_KEY` (or in the file `STACYVM_API_KEY_FILE`), unless they are given; without a key, what a server of the same user
    on this host has left for its programs.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 60.0,
        retries: int = 2,
        owner: str | None = None,
    ) -> None:
        """`user_id`: the user within the key's owner, for quotas. `owner`: an administrator acts as this owner."""
        self._transport = AsyncTransport(url, api_key, user_id, timeout, retries, owner)
        self.templates = AsyncTemplates(self._transport)
        self.secrets = AsyncSecrets(self._transport)
        self.volumes = AsyncVolumes(self._transport)
        self.images = AsyncImages(self._transport)
        self.snapshots = AsyncSnapshots(self._transport)
        self.checkpoints = AsyncCheckpoints(self._transport)
        self.quotas = AsyncQuotas(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.nodes = AsyncNodes(self._transport)

    @property
    def url(self) -> str:
        return self._transport.url

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Sandboxes

    async def create(self, **options: Any) -> AsyncSandbox:
        """
        A new sandbox that runs. Options: `name`; `image`, `template` or `checkpoint`; `memory_mb`, `vcpus`, `disk_mb`; `ttl`,
        `idle_timeout`, `idle_action` (destroy, pause or suspend); `env`, `setup`, `metadata`, `allowed_hosts`, `owner_id`,
        `provider`, `forkable`.
        """
        return await create_sandbox(self._transport, **options)

    async def run(
        self,
        command: Command,
        *,
        files: Mapping[str, str | bytes] | None = None,
        collect: List[str] | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: Duration | None = None,
        stop_signal: Signal | None = None,
        check: bool = False,
        **options: Any,
    ) -> RunResult:
        """
        Runs a command in a sandbox of its own, which is gone afterwards. `files` are there before it starts, what `collect` names
        is given back; other options are those of `create`. A non-zero exit code is no error, unless `check`.
        """
        if "ttl" in options:
            options["ttl"] = duration_text(options["ttl"])
        body = {
            **options,
            **run_fields(command, env, workdir, user, timeout, stop_signal),
            **stdin_fields(stdin),
            "files": files_field(files or {}),
            "collect": collect or [],
        }
        result = run_result(await self._transport.call("POST", "/run", body=body, timeout=LONG))
        return checked(command, result, check)

    async def get(self, id: str) -> AsyncSandbox:
        """By id or name."""
        info = decode(Info, await self._transport.call("GET", f"/sandboxes/{segment(id)}"))
        return AsyncSandbox(self._transport, info)

    async def list(self) -> List[AsyncSandbox]:
        """Newest first."""
        reply = decode(list[Info], await self._transport.call("GET", "/sandboxes"))
        return [AsyncSandbox(self._transport, info) for info in reply]

    async def admission(self, **request: Any) -> Admission:
        """What a spawn would meet now."""
        if "ttl" in request:
            request["ttl"] = duration_text(request["ttl"])
        return decode(Admission, await self._transport.call("POST", "/sandboxes/admission", body=request))

    async def prune(self) -> int:
        """Destroys what has expired. @returns how many"""
        return int((await self._transport.call("DELETE", "/sandboxes"))["pruned"])

    # What happens

    async def events(
        self, *, types: List[str] | None = None, sandbox_id: str | None = None, after: str | None = None
    ) -> AsyncIterator[Event]:
        """
        Events as they happen, until the loop is left. `types`: only these; `sandbox.*` works. `after`: first what came after
        this event. A broken connection is taken up again.
        """
        failures = 0
        while True:
            params = query(type=None if types is None else ",".join(types), sandbox_id=sandbox_id, last_event_id=after)
            try:
                async with self._transport.open("GET", "/events", params=params, timeout=LONG) as response:
                    failures = 0
                    async for frame in server_sent(response):
                        event = event_of(frame)
                        after = event.id
                        yield event
            except ConnectionError:
                failures += 1
                if failures > 5:
                    raise
            await asyncio.sleep(0.2 * 2**failures)

    async def event_history(
        self,
        *,
        before: str | None = None,
        limit: int | None = None,
        types: List[str] | None = None,
        sandbox_id: str | None = None,
    ) -> EventHistory:
        """What happened, newest first: a page, and what the `next` one begins `before`."""
        kinds = None if types is None else ",".join(types)
        params = query(before=before, limit=limit, type=kinds, sandbox_id=sandbox_id)
        return decode(EventHistory, await self._transport.call("GET", "/events/history", params=params))

    # The server itself

    async def identity(self) -> Identity:
        """Who this client is to the server."""
        return decode(Identity, await self._transport.call("GET", "/identity"))

    async def health(self) -> Health:
        return decode(Health, await self._transport.call("GET", "/health"))

    async def providers(self) -> List[Provider]:
        return decode(list[Provider], await self._transport.call("GET", "/providers"))

    async def pool(self) -> PoolStatus:
        return decode(PoolStatus, await self._transport.call("GET", "/pool/status"))

    async def system_stats(self) -> SystemStats:
        return decode(SystemStats, await self._transport.call("GET", "/system/stats"))

    async def system_history(self) -> List[SystemSample]:
        """Over the last hour, oldest first."""
        return decode(list[SystemSample], await self._transport.call("GET", "/system/history"))

    async def doctor(self) -> Doctor:
        """What the host has and lacks; for administrators."""
        return decode(Doctor, await self._transport.call("GET", "/doctor"))

    async def stats(self) -> dict[str, SandboxStats]:
        """What each sandbox that has a machine uses, by id."""
        return decode(dict[str, SandboxStats], await self._transport.call("GET", "/sandboxes/stats"))

    async def metrics(self) -> dict[str, Any]:
        return decode(dict[str, Any], await self._transport.call("GET", "/metrics"))


class _Group:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport


class AsyncTemplates(_Group):
    """Fields of a template: `image`, `memory_mb`, `vcpus`, `ttl`, `setup`, `env`, `allowed_hosts`, `pool_size`, ..."""

    async def list(self) -> List[Template]:
        return decode(list[Template], await self._transport.call("GET", "/templates"))

    async def get(self, name: str) -> Template:
        return decode(Template, await self._transport.call("GET", f"/templates/{segment(name)}"))

    async def create(self, name: str, **fields: Any) -> Template:
        return decode(Template, await self._transport.call("POST", "/templates", body={"name": name, **fields}))

    async def replace(self, name: str, **fields: Any) -> Template:
        return decode(Template, await self._transport.call("PUT", f"/templates/{segment(name)}", body=fields))

    async def remove(self, name: str) -> None:
        await self._transport.call("DELETE", f"/templates/{segment(name)}")

    async def spawn(self, name: str, *, ttl: Duration | None = None, provider: str | None = None) -> AsyncSandbox:
        body = without_none(ttl=duration_text(ttl), provider=provider)
        reply = await self._transport.call("POST", f"/templates/{segment(name)}/spawn", body=body, timeout=LONG)
        return AsyncSandbox(self._transport, decode(Info, reply))


class AsyncSecrets(_Group):
    """What programs of sandboxes use at some hosts and never have. Values go in and never come out."""

    async def list(self) -> List[Secret]:
        return decode(list[Secret], await self._transport.call("GET", "/secrets"))

    async def get(self, name: str) -> Secret:
        return decode(Secret, await self._transport.call("GET", f"/secrets/{segment(name)}"))

    async def put(self, name: str, **fields: Any) -> Secret:
        """`hosts`, `value` (or `file` or `variable` of the server), `placement`, `placeholder`, `everywhere`; what is absent stays."""
        return decode(Secret, await self._transport.call("PUT", f"/secrets/{segment(name)}", body=fields))

    async def remove(self, name: str) -> None:
        await self._transport.call("DELETE", f"/secrets/{segment(name)}")


class AsyncVolumes(_Group):
    """Disks that stay when sandboxes go."""

    async def list(self) -> List[Volume]:
        return decode(list[Volume], await self._transport.call("GET", "/volumes"))

    async def usage(self) -> List[VolumeUsage]:
        """What an owner's volumes take, and may take; an administrator's: of every owner that has some."""
        return decode(list[VolumeUsage], await self._transport.call("GET", "/usage/volumes"))

    async def get(self, name: str) -> Volume:
        return decode(Volume, await self._transport.call("GET", f"/volumes/{segment(name)}"))

    async def create(self, name: str, *, size_mb: int = 1024) -> Volume:
        body = {"name": name, "size_mb": size_mb}
        return decode(Volume, await self._transport.call("POST", "/volumes", body=body))

    async def resize(self, name: str, size_mb: int) -> Volume:
        """It can only grow, and only while no sandbox has it."""
        path = f"/volumes/{segment(name)}"
        return decode(Volume, await self._transport.call("PATCH", path, body={"size_mb": size_mb}))

    async def clone(self, name: str, to: str, *, read_only: bool = False) -> Volume:
        """While no sandbox may write to it. `read_only`: a snapshot, which never changes."""
        body = {"name": to, "read_only": read_only}
        path = f"/volumes/{segment(name)}/clone"
        return decode(Volume, await self._transport.call("POST", path, body=body, timeout=LONG))

    async def read_content(self, name: str) -> AsyncIterator[bytes]:
        """Its disk, compressed with gzip, while no sandbox may write to it."""
        path = f"/volumes/{segment(name)}/content"
        async with self._transport.open("GET", path, timeout=LONG) as response:
            async for part in response.aiter_bytes():
                yield part

    async def write_content(self, name: str, content: Union[bytes, AsyncIterable[bytes]]) -> Volume:
        """Makes a volume of what `read_content` gave."""
        path = f"/volumes/{segment(name)}/content"
        headers = {"content-type": "application/gzip"}
        reply = await self._transport.call("PUT", path, content=content, headers=headers, timeout=LONG)
        return decode(Volume, reply)

    async def remove(self, name: str) -> None:
        """With all that is in it, and only while no sandbox has it."""
        await self._transport.call("DELETE", f"/volumes/{segment(name)}")


class AsyncImages(_Group):
    async def list(self) -> List[Image]:
        return decode(list[Image], await self._transport.call("GET", "/images"))

    async def pull(
        self, reference: str, *, pull: str = "missing", on_progress: Callable[[dict[str, Any]], None] | None = None
    ) -> Image:
        """Pulls or builds it, unless it is there (`missing`); `always` asks the registry, `never` does not."""
        body = {"reference": reference, "pull": pull, "stream": True}
        async with self._transport.open("POST", "/images/pull", body=body, timeout=LONG) as response:
            async for line in lines_of(response):
                if "image" in line:
                    return decode(Image, line["image"])
                if "error" in line:
                    raise error_in_frame(line["error"])
                if on_progress is not None:
                    on_progress(line)
        raise ReplyError("BAD_REPLY", "the answer ended before the image was there")

    async def remove(self, reference: str) -> None:
        await self._transport.call("DELETE", "/images", params=query(reference=reference))


class AsyncSnapshots(_Group):
    async def list(self) -> List[Snapshot]:
        """Newest first."""
        return decode(list[Snapshot], await self._transport.call("GET", "/snapshots"))

    async def get(self, key: str) -> Snapshot:
        return decode(Snapshot, await self._transport.call("GET", f"/snapshots/{segment(key)}"))

    async def build(self, **request: Any) -> Snapshot:
        """Builds the golden snapshot of a shape now: `image`, `memory_mb`, `vcpus`, ..."""
        return decode(Snapshot, await self._transport.call("POST", "/snapshots", body=request, timeout=LONG))

    async def remove(self, key: str) -> None:
        await self._transport.call("DELETE", f"/snapshots/{segment(key)}")

    async def gc(self, **request: Any) -> SnapshotGc:
        """Removes what was used longest ago, until the rest fits."""
        return decode(SnapshotGc, await self._transport.call("POST", "/snapshots/gc", body=request, timeout=LONG))


class AsyncCheckpoints(_Group):
    async def list(self) -> List[Checkpoint]:
        return decode(list[Checkpoint], await self._transport.call("GET", "/checkpoints"))

    async def get(self, id: str) -> Checkpoint:
        return decode(Checkpoint, await self._transport.call("GET", f"/checkpoints/{segment(id)}"))

    async def remove(self, id: str) -> None:
        await self._transport.call("DELETE", f"/checkpoints/{segment(id)}")


class AsyncQuotas(_Group):
    async def list(self) -> List[OwnerQuota]:
        return decode(list[OwnerQuota], await self._transport.call("GET", "/quotas"))

    async def get(self, owner: str) -> OwnerQuota:
        return decode(OwnerQuota, await self._transport.call("GET", f"/quotas/{segment(owner)}"))

    async def put(
        self,
        owner: str,
        *,
        max_sandboxes: int = 0,
        max_ttl: Duration = "0s",
        max_exec_timeout: Duration = "0s",
    ) -> OwnerQuota:
        """0 means no limit of its own."""
        body = {
            "max_sandboxes": max_sandboxes,
            "max_ttl": duration_text(max_ttl),
            "max_exec_timeout": duration_text(max_exec_timeout),
        }
        return decode(OwnerQuota, await self._transport.call("PUT", f"/quotas/{segment(owner)}", body=body))

    async def remove(self, owner: str) -> None:
        await self._transport.call("DELETE", f"/quotas/{segment(owner)}")

    async def usage(self, owner: str) -> QuotaUsage:
        return decode(QuotaUsage, await self._transport.call("GET", f"/quotas/{segment(owner)}/usage"))


class AsyncKeys(_Group):
    """For administrators. The secret of a key is in the answer that makes it, and nowhere else."""

    async def list(self, owner: str | None = None) -> List[Key]:
        return decode(list[Key], await self._transport.call("GET", "/keys", params=query(owner=owner)))

    async def create(
        self, name: str, *, owner: str | None = None, scopes: List[str] | None = None, expires_in: Duration | None = None
    ) -> MadeKey:
        body = without_none(name=name, owner=owner, scopes=scopes, expires_in=duration_text(expires_in))
        return decode(MadeKey, await self._transport.call("POST", "/keys", body=body))

    async def rotate(self, key: str, *, grace: Duration | None = None) -> MadeKey:
        """`grace`: how long the secret before works on."""
        body = without_none(grace=duration_text(grace))
        return decode(MadeKey, await self._transport.call("POST", f"/keys/{segment(key)}/rotate", body=body))

    async def revoke(self, key: str) -> Key:
        return decode(Key, await self._transport.call("DELETE", f"/keys/{segment(key)}"))


class AsyncNodes(_Group):
    """Servers of the fleet, by id or name, for administrators; none where the server is alone."""

    async def list(self) -> List[FleetNode]:
        return decode(list[FleetNode], await self._transport.call("GET", "/nodes"))

    async def get(self, node: str) -> FleetNode:
        return decode(FleetNode, await self._transport.call("GET", f"/nodes/{segment(node)}"))

    async def drain(self, node: str, *, move: bool = False) -> FleetNode:
        """It gets no new sandboxes; those that it has go on, with `move` elsewhere, beside this."""
        body = {"move": move}
        return decode(FleetNode, await self._transport.call("POST", f"/nodes/{segment(node)}/drain", body=body))

    async def drained(self, node: str) -> NodeDrain:
        """How far one is that is being drained: what it still has, with why."""
        return decode(NodeDrain, await self._transport.call("GET", f"/nodes/{segment(node)}/drain"))

    async def undrain(self, node: str) -> FleetNode:
        return decode(FleetNode, await self._transport.call("POST", f"/nodes/{segment(node)}/undrain"))

    async def remove(self, node: str, *, force: bool = False) -> RemovedNode:
        """`force`: also one that is up or has sandboxes; the fleet forgets them."""
        return decode(
            RemovedNode, await self._transport.call("DELETE", f"/nodes/{segment(node)}", params=query(force=force))
        )
