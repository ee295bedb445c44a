# Made by scripts/generate-sdk.ts; not edited by hand.
"""A server: its sandboxes, templates, images, snapshots, checkpoints, events and numbers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Callable, Mapping
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
from .sandbox import Sandbox, create_sandbox
from .transport import LONG, Transport, lines_of, segment, server_sent


class Client:
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
        self._transport = Transport(url, api_key, user_id, timeout, retries, owner)
        self.templates = Templates(self._transport)
        self.secrets = Secrets(self._transport)
        self.volumes = Volumes(self._transport)
        self.images = Images(self._transport)
        self.snapshots = Snapshots(self._transport)
        self.checkpoints = Checkpoints(self._transport)
        self.quotas = Quotas(self._transport)
        self.keys = Keys(self._transport)
        self.nodes = Nodes(self._transport)

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Sandboxes

    def create(self, **options: Any) -> Sandbox:
        """
        A new sandbox that runs. Options: `name`; `image`, `template` or `checkpoint`; `memory_mb`, `vcpus`, `disk_mb`; `ttl`,
        `idle_timeout`, `idle_action` (destroy, pause or suspend); `env`, `setup`, `metadata`, `allowed_hosts`, `owner_id`,
        `provider`, `forkable`.
        """
        return create_sandbox(self._transport, **options)

    def run(
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
        result = run_result(self._transport.call("POST", "/run", body=body, timeout=LONG))
        return checked(command, result, check)

    def get(self, id: str) -> Sandbox:
        """By id or name."""
        info = decode(Info, self._transport.call("GET", f"/sandboxes/{segment(id)}"))
        return Sandbox(self._transport, info)

    def list(self) -> List[Sandbox]:
        """Newest first."""
        reply = decode(list[Info], self._transport.call("GET", "/sandboxes"))
        return [Sandbox(self._transport, info) for info in reply]

    def admission(self, **request: Any) -> Admission:
        """What a spawn would meet now."""
        if "ttl" in request:
            request["ttl"] = duration_text(request["ttl"])
        return decode(Admission, self._transport.call("POST", "/sandboxes/admission", body=request))

    def prune(self) -> int:
        """Destroys what has expired. @returns how many"""
        return int((self._transport.call("DELETE", "/sandboxes"))["pruned"])

    # What happens

    def events(
        self, *, types: List[str] | None = None, sandbox_id: str | None = None, after: str | None = None
    ) -> Iterator[Event]:
        """
        Events as they happen, until the loop is left. `types`: only these; `sandbox.*` works. `after`: first what came after
        this event. A broken connection is taken up again.
        """
        failures = 0
        while True:
            params = query(type=None if types is None else ",".join(types), sandbox_id=sandbox_id, last_event_id=after)
            try:
                with self._transport.open("GET", "/events", params=params, timeout=LONG) as response:
                    failures = 0
                    for frame in server_sent(response):
                        event = event_of(frame)
                        after = event.id
                        yield event
            except ConnectionError:
                failures += 1
                if failures > 5:
                    raise
            time.sleep(0.2 * 2**failures)

    def event_history(
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
        return decode(EventHistory, self._transport.call("GET", "/events/history", params=params))

    # The server itself

    def identity(self) -> Identity:
        """Who this client is to the server."""
        return decode(Identity, self._transport.call("GET", "/identity"))

    def health(self) -> Health:
        return decode(Health, self._transport.call("GET", "/health"))

    def providers(self) -> List[Provider]:
        return decode(list[Provider], self._transport.call("GET", "/providers"))

    def pool(self) -> PoolStatus:
        return decode(PoolStatus, self._transport.call("GET", "/pool/status"))

    def system_stats(self) -> SystemStats:
        return decode(SystemStats, self._transport.call("GET", "/system/stats"))

    def system_history(self) -> List[SystemSample]:
        """Over the last hour, oldest first."""
        return decode(list[SystemSample], self._transport.call("GET", "/system/history"))

    def doctor(self) -> Doctor:
        """What the host has and lacks; for administrators."""
        return decode(Doctor, self._transport.call("GET", "/doctor"))

    def stats(self) -> dict[str, SandboxStats]:
        """What each sandbox that has a machine uses, by id."""
        return decode(dict[str, SandboxStats], self._transport.call("GET", "/sandboxes/stats"))

    def metrics(self) -> dict[str, Any]:
        return decode(dict[str, Any], self._transport.call("GET", "/metrics"))


class _Group:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Templates(_Group):
    """Fields of a template: `image`, `memory_mb`, `vcpus`, `ttl`, `setup`, `env`, `allowed_hosts`, `pool_size`, ..."""

    def list(self) -> List[Template]:
        return decode(list[Template], self._transport.call("GET", "/templates"))

    def get(self, name: str) -> Template:
        return decode(Template, self._transport.call("GET", f"/templates/{segment(name)}"))

    def create(self, name: str, **fields: Any) -> Template:
        return decode(Template, self._transport.call("POST", "/templates", body={"name": name, **fields}))

    def replace(self, name: str, **fields: Any) -> Template:
        return decode(Template, self._transport.call("PUT", f"/templates/{segment(name)}", body=fields))

    def remove(self, name: str) -> None:
        self._transport.call("DELETE", f"/templates/{segment(name)}")

    def spawn(self, name: str, *, ttl: Duration | None = None, provider: str | None = None) -> Sandbox:
        body = without_none(ttl=duration_text(ttl), provider=provider)
        reply = self._transport.call("POST", f"/templates/{segment(name)}/spawn", body=body, timeout=LONG)
        return Sandbox(self._transport, decode(Info, reply))


class Secrets(_Group):
    """What programs of sandboxes use at some hosts and never have. Values go in and never come out."""

    def list(self) -> List[Secret]:
        return decode(list[Secret], self._transport.call("GET", "/secrets"))

    def get(self, name: str) -> Secret:
        return decode(Secret, self._transport.call("GET", f"/secrets/{segment(name)}"))

    def put(self, name: str, **fields: Any) -> Secret:
        """`hosts`, `value` (or `file` or `variable` of the server), `placement`, `placeholder`, `everywhere`; what is absent stays."""
        return decode(Secret, self._transport.call("PUT", f"/secrets/{segment(name)}", body=fields))

    def remove(self, name: str) -> None:
        self._transport.call("DELETE", f"/secrets/{segment(name)}")


class Volumes(_Group):
    """Disks that stay when sandboxes go."""

    def list(self) -> List[Volume]:
        return decode(list[Volume], self._transport.call("GET", "/volumes"))

    def usage(self) -> List[VolumeUsage]:
        """What an owner's volumes take, and may take; an administrator's: of every owner that has some."""
        return decode(list[VolumeUsage], self._transport.call("GET", "/usage/volumes"))

    def get(self, name: str) -> Volume:
        return decode(Volume, self._transport.call("GET", f"/volumes/{segment(name)}"))

    def create(self, name: str, *, size_mb: int = 1024) -> Volume:
        body = {"name": name, "size_mb": size_mb}
        return decode(Volume, self._transport.call("POST", "/volumes", body=body))

    def resize(self, name: str, size_mb: int) -> Volume:
        """It can only grow, and only while no sandbox has it."""
        path = f"/volumes/{segment(name)}"
        return decode(Volume, self._transport.call("PATCH", path, body={"size_mb": size_mb}))

    def clone(self, name: str, to: str, *, read_only: bool = False) -> Volume:
        """While no sandbox may write to it. `read_only`: a snapshot, which never changes."""
        body = {"name": to, "read_only": read_only}
        path = f"/volumes/{segment(name)}/clone"
        return decode(Volume, self._transport.call("POST", path, body=body, timeout=LONG))

    def read_content(self, name: str) -> Iterator[bytes]:
        """Its disk, compressed with gzip, while no sandbox may write to it."""
        path = f"/volumes/{segment(name)}/content"
        with self._transport.open("GET", path, timeout=LONG) as response:
            for part in response.iter_bytes():
                yield part

    def write_content(self, name: str, content: Union[bytes, Iterable[bytes]]) -> Volume:
        """Makes a volume of what `read_content` gave."""
        path = f"/volumes/{segment(name)}/content"
        headers = {"content-type": "application/gzip"}
        reply = self._transport.call("PUT", path, content=content, headers=headers, timeout=LONG)
        return decode(Volume, reply)

    def remove(self, name: str) -> None:
        """With all that is in it, and only while no sandbox has it."""
        self._transport.call("DELETE", f"/volumes/{segment(name)}")


class Images(_Group):
    def list(self) -> List[Image]:
        return decode(list[Image], self._transport.call("GET", "/images"))

    def pull(
        self, reference: str, *, pull: str = "missing", on_progress: Callable[[dict[str, Any]], None] | None = None
    ) -> Image:
        """Pulls or builds it, unless it is there (`missing`); `always` asks the registry, `never` does not."""
        body = {"reference": reference, "pull": pull, "stream": True}
        with self._transport.open("POST", "/images/pull", body=body, timeout=LONG) as response:
            for line in lines_of(response):
                if "image" in line:
                    return decode(Image, line["image"])
                if "error" in line:
                    raise error_in_frame(line["error"])
                if on_progress is not None:
                    on_progress(line)
        raise ReplyError("BAD_REPLY", "the answer ended before the image was there")

    def remove(self, reference: str) -> None:
        self._transport.call("DELETE", "/images", params=query(reference=reference))


class Snapshots(_Group):
    def list(self) -> List[Snapshot]:
        """Newest first."""
        return decode(list[Snapshot], self._transport.call("GET", "/snapshots"))

    def get(self, key: str) -> Snapshot:
        return decode(Snapshot, self._transport.call("GET", f"/snapshots/{segment(key)}"))

    def build(self, **request: Any) -> Snapshot:
        """Builds the golden snapshot of a shape now: `image`, `memory_mb`, `vcpus`, ..."""
        return decode(Snapshot, self._transport.call("POST", "/snapshots", body=request, timeout=LONG))

    def remove(self, key: str) -> None:
        self._transport.call("DELETE", f"/snapshots/{segment(key)}")

    def gc(self, **request: Any) -> SnapshotGc:
        """Removes what was used longest ago, until the rest fits."""
        return decode(SnapshotGc, self._transport.call("POST", "/snapshots/gc", body=request, timeout=LONG))


class Checkpoints(_Group):
    def list(self) -> List[Checkpoint]:
        return decode(list[Checkpoint], self._transport.call("GET", "/checkpoints"))

    def get(self, id: str) -> Checkpoint:
        return decode(Checkpoint, self._transport.call("GET", f"/checkpoints/{segment(id)}"))

    def remove(self, id: str) -> None:
        self._transport.call("DELETE", f"/checkpoints/{segment(id)}")


class Quotas(_Group):
    def list(self) -> List[OwnerQuota]:
        return decode(list[OwnerQuota], self._transport.call("GET", "/quotas"))

    def get(self, owner: str) -> OwnerQuota:
        return decode(OwnerQuota, self._transport.call("GET", f"/quotas/{segment(owner)}"))

    def put(
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
        return decode(OwnerQuota, self._transport.call("PUT", f"/quotas/{segment(owner)}", body=body))

    def remove(self, owner: str) -> None:
        self._transport.call("DELETE", f"/quotas/{segment(owner)}")

    def usage(self, owner: str) -> QuotaUsage:
        return decode(QuotaUsage, self._transport.call("GET", f"/quotas/{segment(owner)}/usage"))


class Keys(_Group):
    """For administrators. The secret of a key is in the answer that makes it, and nowhere else."""

    def list(self, owner: str | None = None) -> List[Key]:
        return decode(list[Key], self._transport.call("GET", "/keys", params=query(owner=owner)))

    def create(
        self, name: str, *, owner: str | None = None, scopes: List[str] | None = None, expires_in: Duration | None = None
    ) -> MadeKey:
        body = without_none(name=name, owner=owner, scopes=scopes, expires_in=duration_text(expires_in))
        return decode(MadeKey, self._transport.call("POST", "/keys", body=body))

    def rotate(self, key: str, *, grace: Duration | None = None) -> MadeKey:
        """`grace`: how long the secret before works on."""
        body = without_none(grace=duration_text(grace))
        return decode(MadeKey, self._transport.call("POST", f"/keys/{segment(key)}/rotate", body=body))

    def revoke(self, key: str) -> Key:
        return decode(Key, self._transport.call("DELETE", f"/keys/{segment(key)}"))


class Nodes(_Group):
    """Servers of the fleet, by id or name, for administrators; none where the server is alone."""

    def list(self) -> List[FleetNode]:
        return decode(list[FleetNode], self._transport.call("GET", "/nodes"))

    def get(self, node: str) -> FleetNode:
        return decode(FleetNode, self._transport.call("GET", f"/nodes/{segment(node)}"))

    def drain(self, node: str, *, move: bool = False) -> FleetNode:
        """It gets no new sandboxes; those that it has go on, with `move` elsewhere, beside this."""
        body = {"move": move}
        return decode(FleetNode, self._transport.call("POST", f"/nodes/{segment(node)}/drain", body=body))

    def drained(self, node: str) -> NodeDrain:
        """How far one is that is being drained: what it still has, with why."""
        return decode(NodeDrain, self._transport.call("GET", f"/nodes/{segment(node)}/drain"))

    def undrain(self, node: str) -> FleetNode:
        return decode(FleetNode, self._transport.call("POST", f"/nodes/{segment(node)}/undrain"))

    def remove(self, node: str, *, force: bool = False) -> RemovedNode:
        """`force`: also one that is up or has sandboxes; the fleet forgets them."""
        return decode(
            RemovedNode, self._transport.call("DELETE", f"/nodes/{segment(node)}", params=query(force=force))
        )
