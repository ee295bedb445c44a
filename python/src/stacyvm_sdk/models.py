# Made by scripts/generate-sdk.ts; not edited by hand.
"""What the server answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class AdminAuditEntry:
    id: int
    actor: str
    method: str
    path: str
    status: int
    duration_ms: int
    request_id: str
    remote_addr: str
    user_agent: str
    tenant_id: str
    created_at: str


@dataclass(frozen=True, kw_only=True)
class Admission:
    allowed: bool
    queueable: bool
    reason: Literal["max_ttl", "max_sandboxes", "max_sandboxes_per_owner"] | None = None
    active_sandboxes: int
    max_sandboxes: int
    active_owner_sandboxes: int | None = None
    max_owner_sandboxes: int | None = None
    max_ttl: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    id: int
    at: str
    actor: str
    key_id: str | None = None
    owner: str
    #: Other owners whose things were used
    about: list[str] | None = None
    method: str
    route: str
    path: str
    status: int
    request_id: str
    address: str | None = None
    user_agent: str | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Boot:
    path: Literal["warm", "restored", "cold"]
    idle: bool | None = None
    vmm: str
    guest: str
    key: str | None = None
    fallback: str | None = None
    phases: dict[str, float]
    total_ms: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    id: str
    sandbox_id: str
    provider: str
    image: str
    memory_mb: int
    vcpus: int
    disk_mb: int
    owner: str
    owner_id: str | None = None
    name: str | None = None
    bytes: int
    created_at: str
    stopped_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class CodeContext:
    id: str
    language: str
    workdir: str | None = None


@dataclass(frozen=True, kw_only=True)
class CodeError:
    name: str
    value: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class CodeExecution:
    results: list[CodeResult]
    stdout: str
    stderr: str
    error: CodeError | None = None
    execution_count: int


@dataclass(frozen=True, kw_only=True)
class CodeResult:
    #: The value of the last expression; else it was displayed.
    main: bool
    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    #: base64
    png: str | None = None
    #: base64
    jpeg: str | None = None
    #: base64
    pdf: str | None = None
    latex: str | None = None
    javascript: str | None = None
    json: Any | None = None
    #: A table's columns.
    data: Any | None = None
    #: What a figure shows, as data.
    chart: Any | None = None
    other: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ConfigUpdated:
    status: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Doctor:
    ready: bool
    findings: list[Finding]


@dataclass(frozen=True, kw_only=True)
class Environment:
    id: str
    owner_id: str
    name: str
    base_image: str
    python_packages: list[str]
    apt_packages: list[str]
    python_version: str | None = None
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentArtifact:
    target: str
    image_ref: str
    digest: str | None = None
    status: str
    error: str | None = None
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentBuild:
    id: str
    spec_id: str
    status: Literal["queued", "building", "ready", "failed", "canceled"]
    current_step: str
    log: str
    image_size_bytes: int
    digest_local: str | None = None
    error: str | None = None
    created_at: str
    finished_at: str | None = None
    updated_at: str
    artifacts: list[EnvironmentArtifact]


@dataclass(frozen=True, kw_only=True)
class Event:
    id: str
    type: str
    sandbox_id: str | None = None
    owner: str | None = None
    timestamp: str
    #: By type, for example the reason
    data: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class EventHistory:
    events: list[Event]
    next: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExecRecord:
    command: str
    started_at: str
    duration: str
    exit_code: int | None = None
    outcome: str


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    exit_code: int
    stdout: str
    stderr: str
    duration: str
    signal: int | None = None
    #: `out-of-memory`: it ended because the sandbox's memory had run out.
    reason: str | None = None
    truncated: bool | None = None
    encoding: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    path: str
    name: str
    size: int
    #: Permission bits in octal
    mode: str
    is_dir: bool
    mod_time: str
    kind: Literal["file", "directory", "symlink", "other"]
    uid: int
    gid: int
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    state: Literal["ok", "note", "missing"]
    detail: str
    meaning: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fork:
    sandboxes: list[Sandbox]
    stopped_ms: float


@dataclass(frozen=True, kw_only=True)
class Health:
    status: str
    version: str
    uptime: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    name: str
    owner: str
    scopes: list[Literal["read", "use", "admin"]]


@dataclass(frozen=True, kw_only=True)
class Image:
    reference: str
    digest: str
    filesystem: str
    bytes: int
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig


@dataclass(frozen=True, kw_only=True)
class ImageBuild:
    reference: str
    digest: str
    filesystem: str
    bytes: int
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig
    steps: int
    cached_steps: int


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    env: list[str]
    workdir: str | None = None
    user: str | None = None
    entrypoint: list[str]
    cmd: list[str]
    labels: dict[str, str]
    stop_signal: str | None = None
    exposed_ports: list[str]
    volumes: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ImageDetails:
    reference: str
    digest: str
    filesystem: str
    bytes: int
    created_at: str
    #: Whose name it is; absent: everybody's
    owner: str | None = None
    config: ImageConfig
    references: list[str]
    last_used_at: str
    blobs: list[str]


@dataclass(frozen=True, kw_only=True)
class ImageGc:
    images: list[str]
    blobs: list[str]
    builds: list[str]
    snapshots: list[str]
    freed_bytes: int
    kept_bytes: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Key:
    id: str
    name: str
    owner: str
    scopes: list[Literal["read", "use", "admin"]]
    state: Literal["active", "expired", "revoked"]
    allowed_hosts: list[str] | None = None
    #: The first characters of the secret
    hint: str
    created_at: str
    created_by: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class MadeKey:
    id: str
    name: str
    owner: str
    scopes: list[Literal["read", "use", "admin"]]
    state: Literal["active", "expired", "revoked"]
    allowed_hosts: list[str] | None = None
    #: The first characters of the secret
    hint: str
    created_at: str
    created_by: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None
    #: The secret: shown once, and never again
    key: str


@dataclass(frozen=True, kw_only=True)
class OwnerQuota:
    owner_id: str
    max_sandboxes: int
    max_ttl: str
    max_exec_timeout: str
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    enabled: bool
    vms: int | None = None
    max_vms: int | None = None
    total_users: int | None = None
    max_users_per_vm: int | None = None
    pools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    id: str
    pid: int
    command: str
    started_at: str
    running: bool
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessStarted:
    id: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Provider:
    name: str
    healthy: bool
    default: bool
    latency_ms: int
    last_checked: str
    error: str | None = None
    detail: str | None = None
    remedy: str | None = None
    version: str | None = None
    accelerator: str | None = None
    capabilities: list[str]
    runtime_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderDetail:
    name: str
    healthy: bool
    default: bool
    sandbox_count: int
    health: Provider
    config: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class QuotaSummary:
    total: int
    with_max_sandboxes: int
    with_max_ttl: int
    with_max_exec_timeout: int


@dataclass(frozen=True, kw_only=True)
class QuotaUsage:
    owner_id: str
    active_sandboxes: int
    max_sandboxes: int
    max_ttl: str
    max_exec_timeout: str
    quota_configured: bool


@dataclass(frozen=True, kw_only=True)
class Ready:
    status: str
    version: str
    uptime: str
    providers: list[Provider]
    ready_providers: int
    total_providers: int


@dataclass(frozen=True, kw_only=True)
class RunResult:
    exit_code: int
    stdout: str
    stderr: str
    duration: str
    signal: int | None = None
    #: `out-of-memory`: it ended because the sandbox's memory had run out.
    reason: str | None = None
    truncated: bool | None = None
    encoding: str | None = None
    #: Of the sandbox, which is gone
    sandbox_id: str
    boot: dict[str, Any] | None = None
    #: What `collect` names, by path, in base64
    files: dict[str, str]
    #: What `collect` names and the sandbox has not
    missing: list[str]


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    id: str
    name: str | None = None
    state: Literal["creating", "running", "paused", "suspended", "error", "expired", "destroyed"]
    provider: str
    image: str
    memory_mb: int
    vcpus: int
    disk_mb: int
    owner: str
    #: The user that the client named, for quotas
    owner_id: str | None = None
    #: The owner as a tenant; absent: the default one
    tenant_id: str | None = None
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    preview_domain: str
    #: `local`: the machine that answers
    worker_id: str
    template: str | None = None
    checkpoint: str | None = None
    forked_from: str | None = None
    idle_timeout: str | None = None
    allowed_hosts: list[str] | None = None
    #: Names of those that its programs may use
    secrets: list[str] | None = None
    boot: Boot | None = None
    error: dict[str, Any] | None = None
    unreachable: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class SandboxNetwork:
    allowed_hosts: list[str]
    open: int
    connected: int
    refused: int
    failed: int
    #: Bytes to hosts
    sent: int
    #: Bytes from hosts
    received: int
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class SandboxStats:
    supported: bool
    #: Of one core
    cpu_pct: float | None = None
    #: Memory that is its own
    mem_bytes: int | None = None
    #: With its share of what it has in common with others
    mem_pss_bytes: int | None = None
    mem_limit_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Secret:
    name: str
    owner: str
    hosts: list[str]
    placement: SecretPlacement
    placeholder: str
    source: Literal["value", "file", "environment"]
    everywhere: bool
    #: The value is there
    available: bool
    #: It is there after the server's next start, too
    kept: bool
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class SecretPlacement:
    kind: Literal["bearer", "header", "basic", "query"]
    name: str | None = None
    template: str | None = None
    username: str | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    key: str
    kind: Literal["golden", "checkpoint"]
    image: str
    image_digest: str
    provider: str
    vcpus: int
    memory_mb: int
    disk_mb: int
    created_at: str
    last_used_at: str
    bytes: int
    in_use: int


@dataclass(frozen=True, kw_only=True)
class SnapshotGc:
    removed: list[dict[str, Any]]
    kept: list[dict[str, Any]]
    bytes: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    status: str


@dataclass(frozen=True, kw_only=True)
class SystemSample:
    cpu_pct: float
    mem_pct: float
    disk_pct: float
    net_rx_bps: float
    net_tx_bps: float
    load1: float
    at: str


@dataclass(frozen=True, kw_only=True)
class SystemStats:
    cpu_pct: float
    mem_pct: float
    disk_pct: float
    net_rx_bps: float
    net_tx_bps: float
    load1: float


@dataclass(frozen=True, kw_only=True)
class Template:
    name: str
    owner: str
    shared: bool
    version: int
    image: str
    description: str
    setup: list[str]
    start_command: str | None = None
    ready_command: str | None = None
    contexts: list[dict[str, Any]] | None = None
    allowed_hosts: list[str]
    memory_mb: int
    cpu_cores: int
    vcpus: int
    ttl_seconds: float
    ttl: str
    env: dict[str, str]
    secrets: list[dict[str, Any]]
    pool_size: int
    provider: str
    metadata: dict[str, str]
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class Tenant:
    id: str
    name: str
    owner_id: str
    settings: str
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class TenantMember:
    tenant_id: str
    #: The key's name
    user_id: str
    role: Literal["viewer", "operator", "admin"]
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    id: str
    tenant_id: str
    resource_type: str
    effect: Literal["allow", "deny"]
    pattern: str
    priority: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, kw_only=True)
class Worker:
    id: str
    hostname: str
    status: str
    providers: list[str]
    capabilities: list[str]
    capacity: dict[str, Any]
    last_heartbeat: str
    created_at: str
    updated_at: str
    stale: bool
