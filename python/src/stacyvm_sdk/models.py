# Made by scripts/generate-sdk.ts; not edited by hand.
"""What the server answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class AdminAuditEntry:
    #: Its id, which the server gave it.
    id: int
    #: Who called: the key's name.
    actor: str
    #: The HTTP method.
    method: str
    #: The path that was called.
    path: str
    #: What became of it.
    status: int
    #: How long it took, ms.
    duration_ms: int
    #: Names the call in the server's log.
    request_id: str
    #: Where the call came from.
    remote_addr: str
    #: What the client calls itself.
    user_agent: str
    #: The tenant that it belongs to.
    tenant_id: str
    #: When it was made (RFC 3339).
    created_at: str


@dataclass(frozen=True, kw_only=True)
class Admission:
    #: Whether a spawn would be let in now.
    allowed: bool
    #: Whether it would wait for its turn instead of being refused.
    queueable: bool
    #: Why, in one word.
    reason: Literal["max_ttl", "max_sandboxes", "max_sandboxes_per_owner"] | None = None
    #: Sandboxes that are alive now.
    active_sandboxes: int
    #: The most at once; 0: no limit.
    max_sandboxes: int
    #: Of them, those of this user.
    active_owner_sandboxes: int | None = None
    #: The most at once of this user; 0: no limit.
    max_owner_sandboxes: int | None = None
    #: The longest life that a sandbox may have (a Go duration).
    max_ttl: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    #: Its id, which the server gave it.
    id: int
    #: When it was (RFC 3339).
    at: str
    #: Who called: the key's name.
    actor: str
    #: The key that called.
    key_id: str | None = None
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: Other owners whose things were used
    about: list[str] | None = None
    #: The HTTP method.
    method: str
    #: The route that was called, without ids.
    route: str
    #: The path that was called.
    path: str
    #: What became of it.
    status: int
    #: Names the call in the server's log.
    request_id: str
    #: Where the call came from.
    address: str | None = None
    #: What the client calls itself.
    user_agent: str | None = None
    #: How long it took, ms.
    duration_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Boot:
    #: Which way: `warm` (it waited ready), `restored` (from a snapshot) or `cold` (booted).
    path: Literal["warm", "restored", "cold"]
    #: Whether the monitor's process was there already.
    idle: bool | None = None
    #: The machine monitor.
    vmm: str
    #: `linux`, or `bare` for the test guest without an operating system.
    guest: str
    #: The snapshot's key: the same for all sandboxes of one kind.
    key: str | None = None
    #: Why a better way was tried and failed, if one was.
    fallback: str | None = None
    #: How long each part of the start took, ms.
    phases: dict[str, float]
    #: From the request to the agent's first answer, ms.
    total_ms: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    #: Its id, which the server gave it.
    id: str
    #: The sandbox that it is about.
    sandbox_id: str
    #: Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here.
    provider: str
    #: The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest.
    image: str
    #: Memory of the machine, MiB.
    memory_mb: int
    #: Virtual CPUs of the machine.
    vcpus: int
    #: Size of the writable layer above the image, MiB.
    disk_mb: int
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: The user within the owner whom quotas count it for.
    owner_id: str | None = None
    #: Its name, for people and in paths.
    name: str | None = None
    #: What it takes on disk, bytes.
    bytes: int
    #: What is wrong with its files: nothing starts from it until they are put back
    damaged: str | None = None
    #: Volumes that are saved with it
    volumes: list[VolumeMount] | None = None
    #: When it was made (RFC 3339).
    created_at: str
    #: How long the source stood still for it, ms.
    stopped_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class CodeContext:
    #: Its id, which the server gave it.
    id: str
    #: `python`, `javascript`, `typescript` or `bash`, where the image has it.
    language: str
    #: Directory in which it begins. Default: the image's.
    workdir: str | None = None


@dataclass(frozen=True, kw_only=True)
class CodeError:
    #: The kind of error, for example `ZeroDivisionError`.
    name: str
    #: What the error says.
    value: str
    #: Where in the code it happened.
    traceback: str


@dataclass(frozen=True, kw_only=True)
class CodeExecution:
    #: What was displayed, and the value of the last expression.
    results: list[CodeResult]
    #: What it wrote to standard output.
    stdout: str
    #: What it wrote to standard error.
    stderr: str
    error: CodeError | None = None
    #: How many pieces of code its context has run.
    execution_count: int


@dataclass(frozen=True, kw_only=True)
class CodeResult:
    #: The value of the last expression; else it was displayed.
    main: bool
    #: As text.
    text: str | None = None
    #: As HTML.
    html: str | None = None
    #: As Markdown.
    markdown: str | None = None
    #: As an SVG picture.
    svg: str | None = None
    #: base64
    png: str | None = None
    #: base64
    jpeg: str | None = None
    #: base64
    pdf: str | None = None
    #: As LaTeX.
    latex: str | None = None
    #: As JavaScript.
    javascript: str | None = None
    #: As JSON.
    json: Any | None = None
    #: A table's columns.
    data: Any | None = None
    #: What a figure shows, as data.
    chart: Any | None = None
    #: In further forms, by MIME type.
    other: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ConfigUpdated:
    #: What became of it.
    status: str
    #: What happened, in words.
    message: str


@dataclass(frozen=True, kw_only=True)
class Directory:
    #: Where its value comes from.
    source: str
    #: Where a symbolic link leads.
    target: str
    #: Whether it can only be read.
    read_only: bool
    #: What the sandbox writes stays in it
    copy_on_write: Literal[True] | None = None


@dataclass(frozen=True, kw_only=True)
class Doctor:
    #: Whether it can be used now.
    ready: bool
    #: What was found, one by one.
    findings: list[Finding]


@dataclass(frozen=True, kw_only=True)
class Environment:
    #: Its id, which the server gave it.
    id: str
    #: The user within the owner whom quotas count it for.
    owner_id: str
    #: Its name, for people and in paths.
    name: str
    #: The image that it begins with.
    base_image: str
    #: What pip installs, as it is written for pip.
    python_packages: list[str]
    #: What apt installs.
    apt_packages: list[str]
    #: Which Python its base image shall have.
    python_version: str | None = None
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentArtifact:
    #: What it was made for.
    target: str
    #: The image's name.
    image_ref: str
    #: The digest of its content, `sha256:...`.
    digest: str | None = None
    #: What became of it.
    status: str
    #: What went wrong, if something did.
    error: str | None = None
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentBuild:
    #: Its id, which the server gave it.
    id: str
    #: The environment that it builds.
    spec_id: str
    #: What became of it.
    status: Literal["queued", "building", "ready", "failed", "canceled"]
    #: The step that it is at.
    current_step: str
    #: What the build has said so far.
    log: str
    #: Size of the image that was made, bytes.
    image_size_bytes: int
    #: Digest of the image that was made.
    digest_local: str | None = None
    #: What went wrong, if something did.
    error: str | None = None
    #: When it was made (RFC 3339).
    created_at: str
    #: When it ended (RFC 3339).
    finished_at: str | None = None
    #: When it was last changed (RFC 3339).
    updated_at: str
    #: What was made, one for each target.
    artifacts: list[EnvironmentArtifact]


@dataclass(frozen=True, kw_only=True)
class Event:
    #: `evt-` and a number that grows; `last_event_id` continues after it.
    id: str
    #: What kind it is, for example `sandbox.running`.
    type: str
    #: The sandbox that it is about.
    sandbox_id: str | None = None
    #: Whose it is. `default` where no owners are set up.
    owner: str | None = None
    #: When it happened (RFC 3339).
    timestamp: str
    #: By type, for example the reason
    data: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class EventHistory:
    #: The events, newest first.
    events: list[Event]
    #: What the next page begins before; absent at the end.
    next: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExecRecord:
    #: The command, as it was given.
    command: str
    #: When it began (RFC 3339).
    started_at: str
    #: How long it took (a Go duration).
    duration: str
    #: Its exit code; 128 + n when signal n ended it.
    exit_code: int | None = None
    #: How it ended: `completed`, `timeout`, `cancelled`, ...
    outcome: str


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    #: Its exit code; 128 + n when signal n ended it.
    exit_code: int
    #: What it wrote to standard output.
    stdout: str
    #: What it wrote to standard error.
    stderr: str
    #: How long it took (a Go duration).
    duration: str
    #: The number of the signal that ended it.
    signal: int | None = None
    #: `out-of-memory`: it ended because the sandbox's memory had run out.
    reason: str | None = None
    #: Whether more was written than is kept; `stream` has no such limit.
    truncated: bool | None = None
    #: `utf8` or `base64`: how bytes are written in the text.
    encoding: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    #: The path in the sandbox; a relative one begins in the working directory.
    path: str
    #: The last part of its path.
    name: str
    #: Bytes of its content.
    size: int
    #: Permission bits in octal
    mode: str
    #: Whether it is a directory.
    is_dir: bool
    #: When its content last changed (RFC 3339).
    mod_time: str
    #: The same to the microsecond, since 1970.
    mod_time_us: int
    #: What kind it is: one of the words in its type.
    kind: Literal["file", "directory", "symlink", "other"]
    #: Number of its user.
    uid: int
    #: Number of its group.
    gid: int
    #: Where a symbolic link leads.
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    #: What was looked at.
    name: str
    #: Whether that is as it should be.
    state: Literal["ok", "note", "missing"]
    #: More about it, in words.
    detail: str
    #: What that means for you.
    meaning: str
    #: What to do about it.
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class FleetNode:
    #: Its id, which the server gave it.
    id: str
    #: Its name, for people and in paths.
    name: str
    #: How the others reach it
    url: str
    #: `node`, or `entrance` for one that takes calls and has no machines.
    role: str
    #: `silent`: it missed three heartbeats; `lost`: it was silent for `fleet.lost_after`
    state: Literal["up", "silent", "lost"]
    #: It takes no new sandboxes
    draining: bool
    #: It is the one that answers
    self: bool
    #: Its version.
    version: str
    #: Labels of the node, from its configuration.
    labels: dict[str, str]
    #: Of its processors, as Node.js names it: `x64`.
    architecture: str
    #: Saved machines wake on nodes where this is the same
    host_identity: str
    #: Machine monitors that it has; the first is its default.
    providers: list[str]
    #: When it last said that it is there, by the clock of the fleet's database (RFC 3339).
    seen_at: str
    #: What it has to do and what it has left, as of its last heartbeat.
    load: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fork:
    #: The copies.
    sandboxes: list[Sandbox]
    #: How long the source stood still for it, ms.
    stopped_ms: float


@dataclass(frozen=True, kw_only=True)
class FreeVolumeSlots:
    #: For volumes that are written
    volume_slots: int
    #: For volumes that are only read
    volume_slots_read_only: int


@dataclass(frozen=True, kw_only=True)
class Health:
    #: `healthy` while the server answers.
    status: str
    #: Its version.
    version: str
    #: For how long the server has run (a Go duration).
    uptime: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: What it may do: `read`, `use`, `admin`.
    scopes: list[Literal["read", "use", "admin"]]


@dataclass(frozen=True, kw_only=True)
class Image:
    #: The image's name.
    reference: str
    #: The digest of its content, `sha256:...`.
    digest: str
    #: Of the read-only disk made from it.
    filesystem: str
    #: What it takes on disk, bytes.
    bytes: int
    #: When it was made (RFC 3339).
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig


@dataclass(frozen=True, kw_only=True)
class ImageBuild:
    #: The image's name.
    reference: str
    #: The digest of its content, `sha256:...`.
    digest: str
    #: Of the read-only disk made from it.
    filesystem: str
    #: What it takes on disk, bytes.
    bytes: int
    #: When it was made (RFC 3339).
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig
    #: How many steps there are.
    steps: int
    #: How many of them came from the cache.
    cached_steps: int


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    #: Environment variables: names and values.
    env: list[str]
    #: Directory in which it begins. Default: the image's.
    workdir: str | None = None
    #: As whom it runs: a name, an id, or `user:group`. Default: the image's user.
    user: str | None = None
    #: The program that the image starts, before `cmd`.
    entrypoint: list[str]
    #: The image's own command, or its arguments.
    cmd: list[str]
    #: Labels of the image.
    labels: dict[str, str]
    #: What asks it to end, before it is killed.
    stop_signal: str | None = None
    #: Ports that the image says it listens on.
    exposed_ports: list[str]
    #: Directories that the image wants for data.
    volumes: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ImageDetails:
    #: The image's name.
    reference: str
    #: The digest of its content, `sha256:...`.
    digest: str
    #: Of the read-only disk made from it.
    filesystem: str
    #: What it takes on disk, bytes.
    bytes: int
    #: When it was made (RFC 3339).
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig
    #: All its names.
    references: list[str]
    #: When it was last used (RFC 3339).
    last_used_at: str
    #: Layers, by digest.
    blobs: list[str]


@dataclass(frozen=True, kw_only=True)
class ImageGc:
    #: Images that went, or would go.
    images: list[str]
    #: Layers, by digest.
    blobs: list[str]
    #: Kept steps of builds that went, or would go.
    builds: list[str]
    #: Golden snapshots that went, or would go.
    snapshots: list[str]
    #: What became free, bytes.
    freed_bytes: int
    #: What stays, bytes.
    kept_bytes: int
    #: Say what would go, and remove nothing.
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Key:
    #: Its id, which the server gave it.
    id: str
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: What it may do: `read`, `use`, `admin`.
    scopes: list[Literal["read", "use", "admin"]]
    #: Whether it works: `active`, `expired` or `revoked`.
    state: Literal["active", "expired", "revoked"]
    #: Hosts that it may connect to. Empty: none.
    allowed_hosts: list[str] | None = None
    #: The first characters of the secret
    hint: str
    #: When it was made (RFC 3339).
    created_at: str
    #: Which key made it.
    created_by: str
    #: When it ends by itself (RFC 3339).
    expires_at: str | None = None
    #: When it was revoked (RFC 3339).
    revoked_at: str | None = None
    #: When it was last used (RFC 3339).
    last_used_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class MadeKey:
    #: Its id, which the server gave it.
    id: str
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: What it may do: `read`, `use`, `admin`.
    scopes: list[Literal["read", "use", "admin"]]
    #: Whether it works: `active`, `expired` or `revoked`.
    state: Literal["active", "expired", "revoked"]
    #: Hosts that it may connect to. Empty: none.
    allowed_hosts: list[str] | None = None
    #: The first characters of the secret
    hint: str
    #: When it was made (RFC 3339).
    created_at: str
    #: Which key made it.
    created_by: str
    #: When it ends by itself (RFC 3339).
    expires_at: str | None = None
    #: When it was revoked (RFC 3339).
    revoked_at: str | None = None
    #: When it was last used (RFC 3339).
    last_used_at: str | None = None
    #: The secret: shown once, and never again
    key: str


@dataclass(frozen=True, kw_only=True)
class MovedSandbox:
    #: Its id, which the server gave it.
    id: str
    #: Name of the node that has it
    node: str
    #: Name of the node that had it
    former_node: str
    #: What it is doing now.
    state: str
    #: So long its programs stood still; 0: it was there already
    stopped_ms: float
    #: From the request to the agent's first answer, ms.
    total_ms: float
    #: Sent over the network
    bytes: int
    #: That the other node had already
    known_bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeDrain:
    #: It takes no new sandboxes
    draining: bool
    #: It is giving away what it has
    moving: bool
    #: Sandboxes, since it began
    moved: int
    #: What it has, with why
    left: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class OwnerQuota:
    #: The user within the owner whom quotas count it for.
    owner_id: str
    #: The most at once; 0: no limit.
    max_sandboxes: int
    #: The longest life that a sandbox may have (a Go duration).
    max_ttl: str
    #: The longest time that a command may have (a Go duration); what names none has this where its result is waited for.
    max_exec_timeout: str
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    #: Whether there is one.
    enabled: bool
    #: Machines that wait.
    vms: int | None = None
    #: How many shall wait.
    max_vms: int | None = None
    #: Users of shared machines; always 0, since no machine is shared.
    total_users: int | None = None
    #: Users of one machine; always 1.
    max_users_per_vm: int | None = None
    #: One for each kind of machine.
    pools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    #: Its number in this sandbox, for the routes below `/processes`.
    id: str
    #: Its process id in the guest.
    pid: int
    #: The command, as it was given.
    command: str
    #: When it began (RFC 3339).
    started_at: str
    #: Whether it runs now.
    running: bool
    #: Started to go on by itself
    detached: bool | None = None
    #: Its exit code; 128 + n when signal n ended it.
    exit_code: int | None = None
    #: The number of the signal that ended it.
    signal: int | None = None
    #: Why it ended: `exited`, `signaled`, `timeout`, `cancelled`, `out-of-memory`.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessStarted:
    #: Its number in this sandbox, for the routes below `/processes`.
    id: str
    #: Its process id in the guest.
    pid: int


@dataclass(frozen=True, kw_only=True)
class Provider:
    #: Its name, for people and in paths.
    name: str
    #: Whether it works.
    healthy: bool
    #: Whether it is used when none is named.
    default: bool
    #: How long it took to answer, ms.
    latency_ms: int
    #: When that was last looked at (RFC 3339).
    last_checked: str
    #: What went wrong, if something did.
    error: str | None = None
    #: More about it, in words.
    detail: str | None = None
    #: What to do about it.
    remedy: str | None = None
    #: Its version.
    version: str | None = None
    #: `kvm`, or `tcg` for software emulation.
    accelerator: str | None = None
    #: What it can do.
    capabilities: list[str]
    #: How many machines it has.
    runtime_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderDetail:
    #: Its name, for people and in paths.
    name: str
    #: Whether it works.
    healthy: bool
    #: Whether it is used when none is named.
    default: bool
    #: How many sandboxes it has.
    sandbox_count: int
    health: Provider
    #: How it is set up; secrets are left out.
    config: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class QuotaSummary:
    #: How many quotas there are.
    total: int
    #: How many of them limit sandboxes.
    with_max_sandboxes: int
    #: How many of them limit the life of sandboxes.
    with_max_ttl: int
    #: How many of them limit the time of commands.
    with_max_exec_timeout: int


@dataclass(frozen=True, kw_only=True)
class QuotaUsage:
    #: The user within the owner whom quotas count it for.
    owner_id: str
    #: Sandboxes that are alive now.
    active_sandboxes: int
    #: The most at once; 0: no limit.
    max_sandboxes: int
    #: The longest life that a sandbox may have (a Go duration).
    max_ttl: str
    #: The longest time that a command may have (a Go duration); what names none has this where its result is waited for.
    max_exec_timeout: str
    #: Whether this user has limits of their own.
    quota_configured: bool


@dataclass(frozen=True, kw_only=True)
class Ready:
    #: `healthy` while the server answers.
    status: str
    #: Its version.
    version: str
    #: For how long the server has run (a Go duration).
    uptime: str
    #: Machine monitors, by name.
    providers: list[Provider]
    #: How many of them can start machines.
    ready_providers: int
    #: How many are set up.
    total_providers: int


@dataclass(frozen=True, kw_only=True)
class RemovedNode:
    #: Ids of the sandboxes that it had
    forgotten: list[str]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    #: Its exit code; 128 + n when signal n ended it.
    exit_code: int
    #: What it wrote to standard output.
    stdout: str
    #: What it wrote to standard error.
    stderr: str
    #: How long it took (a Go duration).
    duration: str
    #: The number of the signal that ended it.
    signal: int | None = None
    #: `out-of-memory`: it ended because the sandbox's memory had run out.
    reason: str | None = None
    #: Whether more was written than is kept; `stream` has no such limit.
    truncated: bool | None = None
    #: `utf8` or `base64`: how bytes are written in the text.
    encoding: str | None = None
    #: Of the sandbox, which is gone
    sandbox_id: str
    #: How its machine was started.
    boot: dict[str, Any] | None = None
    #: What `collect` names, by path, in base64
    files: dict[str, str]
    #: What `collect` names and the sandbox has not
    missing: list[str]


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    #: Its id, `sb-` and eight characters. It stays the same over pauses, suspensions and restarts of the server.
    id: str
    #: Its name, for people and in paths.
    name: str | None = None
    #: What it is doing now.
    state: Literal["creating", "running", "paused", "suspended", "error", "expired", "destroyed"]
    #: Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here.
    provider: str
    #: The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest.
    image: str
    #: Memory of the machine, MiB.
    memory_mb: int
    #: Virtual CPUs of the machine.
    vcpus: int
    #: Size of the writable layer above the image, MiB.
    disk_mb: int
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: The user that the client named, for quotas
    owner_id: str | None = None
    #: The owner as a tenant; absent: the default one
    tenant_id: str | None = None
    #: When it was made (RFC 3339).
    created_at: str
    #: When it ends by itself (RFC 3339).
    expires_at: str
    #: Labels of yours: names and values, to find it by.
    metadata: dict[str, str]
    #: Its ports are at `http://{port}-{id}.` and this domain.
    preview_domain: str
    #: `local`: the machine that answers
    worker_id: str
    #: The template that it is made from.
    template: str | None = None
    #: The checkpoint that it began from.
    checkpoint: str | None = None
    #: The sandbox that it is a copy of.
    forked_from: str | None = None
    #: After how long without use `idle_action` is done (a Go duration).
    idle_timeout: str | None = None
    #: It was paused or suspended by itself, and its next use brings it back. Absent: only `resume` does, or it runs.
    resume_on_use: bool | None = None
    #: Hosts that it may connect to. Empty: none.
    allowed_hosts: list[str] | None = None
    #: Names of those that its programs may use
    secrets: list[str] | None = None
    #: Volumes that it has
    volumes: list[VolumeMount] | None = None
    #: Directories of the host that it has
    mounts: list[Directory] | None = None
    free_volume_slots: FreeVolumeSlots | None = None
    boot: Boot | None = None
    #: What went wrong, if something did.
    error: dict[str, Any] | None = None
    #: Why its machine cannot be asked now, if so.
    unreachable: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class SandboxNetwork:
    #: Hosts that it may connect to. Empty: none.
    allowed_hosts: list[str]
    #: Connections that are open now.
    open: int
    #: Connections that were made so far.
    connected: int
    #: Attempts to reach hosts that are not allowed.
    refused: int
    #: Attempts to reach allowed hosts that did not answer.
    failed: int
    #: Bytes to hosts
    sent: int
    #: Bytes from hosts
    received: int
    #: Why its network does not work, if it does not.
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class SandboxStats:
    #: Whether this can be measured now.
    supported: bool
    #: Of one core
    cpu_pct: float | None = None
    #: What it alone has written to memory; page cache that the host can take back is not counted
    mem_bytes: int | None = None
    #: The same, with its share of what it has in common with others
    mem_pss_bytes: int | None = None
    #: What its machine has, bytes.
    mem_limit_bytes: int | None = None
    #: What its files occupy on the host's disk, bytes.
    disk_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Secret:
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: Hosts that the value may be sent to.
    hosts: list[str]
    placement: SecretPlacement
    #: What programs in the sandbox see instead of the value.
    placeholder: str
    #: Where its value comes from.
    source: Literal["value", "file", "environment"]
    #: Whether every sandbox of the owner has it.
    everywhere: bool
    #: The value is there
    available: bool
    #: It is there after the server's next start, too
    kept: bool
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class SecretPlacement:
    #: What kind it is: one of the words in its type.
    kind: Literal["bearer", "header", "basic", "query"]
    #: Of the header or the query parameter.
    name: str | None = None
    #: How the value is written there; `{value}` stands for it.
    template: str | None = None
    #: The user's name that goes with it.
    username: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    #: Which snapshot, by its key.
    key: str
    #: What kind it is: one of the words in its type.
    kind: Literal["golden", "checkpoint"]
    #: The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest.
    image: str
    #: The digest of its image.
    image_digest: str
    #: Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here.
    provider: str
    #: Virtual CPUs of the machine.
    vcpus: int
    #: Memory of the machine, MiB.
    memory_mb: int
    #: Size of the writable layer above the image, MiB.
    disk_mb: int
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last used (RFC 3339).
    last_used_at: str
    #: What it takes on disk, bytes.
    bytes: int
    #: How many machines and waiting monitors use it now.
    in_use: int


@dataclass(frozen=True, kw_only=True)
class SnapshotGc:
    #: What went, or would go, and why.
    removed: list[dict[str, Any]]
    #: What stays, and why.
    kept: list[dict[str, Any]]
    #: What it takes on disk, bytes.
    bytes: int
    #: Say what would go, and remove nothing.
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    #: What became of it.
    status: str


@dataclass(frozen=True, kw_only=True)
class SystemSample:
    #: Processors of the host in use, percent.
    cpu_pct: float
    #: Memory of the host in use, percent.
    mem_pct: float
    #: The data directory's disk in use, percent.
    disk_pct: float
    #: The host receives, bytes a second.
    net_rx_bps: float
    #: The host sends, bytes a second.
    net_tx_bps: float
    #: Load of the host over one minute.
    load1: float
    #: When it was (RFC 3339).
    at: str


@dataclass(frozen=True, kw_only=True)
class SystemStats:
    #: Processors of the host in use, percent.
    cpu_pct: float
    #: Memory of the host in use, percent.
    mem_pct: float
    #: The data directory's disk in use, percent.
    disk_pct: float
    #: The host receives, bytes a second.
    net_rx_bps: float
    #: The host sends, bytes a second.
    net_tx_bps: float
    #: Load of the host over one minute.
    load1: float


@dataclass(frozen=True, kw_only=True)
class Template:
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: Whether it is everybody's, not the owner's alone.
    shared: bool
    #: Counts the changes of the template, from 1.
    version: int
    #: The image, by name (`python:3.12-slim`, `stacyvm/code`) or digest.
    image: str
    #: What it is for, in people's words.
    description: str
    #: Commands that run once before the machine is saved; every sandbox of this kind has their result.
    setup: list[str]
    #: A program that is started before the machine is saved, and goes on in each sandbox.
    start_command: str | None = None
    #: It succeeds when the started program is ready to be saved.
    ready_command: str | None = None
    #: Contexts of the code interpreter that are saved with the machine, warm.
    contexts: list[dict[str, Any]] | None = None
    #: Hosts that it may connect to. Empty: none.
    allowed_hosts: list[str]
    #: Memory of the machine, MiB.
    memory_mb: int
    #: Virtual CPUs of the machine, as older clients call them.
    cpu_cores: int
    #: Virtual CPUs of the machine.
    vcpus: int
    #: How long its sandboxes live, seconds.
    ttl_seconds: float
    #: How long it lives from now on (a Go duration).
    ttl: str
    #: Environment variables: names and values.
    env: dict[str, str]
    #: Secrets that it may use; their values stay on the server.
    secrets: list[dict[str, Any]]
    #: Volumes that its sandboxes get
    volumes: list[VolumeMount] | None = None
    #: Free places for volumes to be written
    volume_slots: int | None = None
    #: The same, to be only read
    volume_slots_read_only: int | None = None
    #: How many machines of it are kept ready.
    pool_size: int
    #: Which machine monitor: `firecracker`, `qemu`, or `auto` for the best one here.
    provider: str
    #: Labels of yours: names and values, to find it by.
    metadata: dict[str, str]
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class Tenant:
    #: Its id, which the server gave it.
    id: str
    #: Its name, for people and in paths.
    name: str
    #: The user within the owner whom quotas count it for.
    owner_id: str
    #: Settings of the tenant.
    settings: str
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class TenantMember:
    #: The tenant that it belongs to.
    tenant_id: str
    #: The key's name
    user_id: str
    #: What the member may do: `viewer` reads, `operator` uses, `admin` administers.
    role: Literal["viewer", "operator", "admin"]
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    #: Its id, which the server gave it.
    id: str
    #: The tenant that it belongs to.
    tenant_id: str
    #: What it rules on: `image` or `provider`.
    resource_type: str
    #: `allow` or `deny`.
    effect: Literal["allow", "deny"]
    #: What it is about, by name; `*` stands for any part.
    pattern: str
    #: The lowest one that matches decides; default 10.
    priority: int
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class Volume:
    #: Its name, for people and in paths.
    name: str
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: Size of its disk, MiB
    size_mb: int
    #: What it occupies on the host, bytes; absent: its file is not there
    used_bytes: int | None = None
    #: It is a snapshot, and never changes
    read_only: bool
    #: Name of the volume that it was copied from
    copied_from: str | None = None
    #: Sandboxes that have it: one that writes, or any number that read
    sandboxes: list[VolumeUse]
    #: When it was made (RFC 3339).
    created_at: str


@dataclass(frozen=True, kw_only=True)
class VolumeMount:
    #: Its name, for people and in paths.
    name: str
    #: The path in the sandbox; a relative one begins in the working directory.
    path: str
    #: Whether it can only be read.
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class VolumeUsage:
    #: Whose it is. `default` where no owners are set up.
    owner: str
    #: How many there are
    volumes: int
    #: Sizes of their disks together, MiB
    size_mb: int
    #: What they occupy on the host; what clones share counts with each
    used_bytes: int
    #: How many there may be; 0: no limit
    max_volumes: int
    #: What their sizes may be together, MiB; 0: no limit
    max_size_mb: int


@dataclass(frozen=True, kw_only=True)
class VolumeUse:
    #: Its id, which the server gave it.
    id: str
    #: The path in the sandbox; a relative one begins in the working directory.
    path: str
    #: Whether it can only be read.
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class Worker:
    #: Its id, which the server gave it.
    id: str
    #: The host that it runs on.
    hostname: str
    #: What became of it.
    status: str
    #: Machine monitors, by name.
    providers: list[str]
    #: What it can do.
    capabilities: list[str]
    #: How much it can take.
    capacity: dict[str, Any]
    #: When it last reported (RFC 3339).
    last_heartbeat: str
    #: When it was made (RFC 3339).
    created_at: str
    #: When it was last changed (RFC 3339).
    updated_at: str
    #: Whether it has not reported for too long.
    stale: bool
