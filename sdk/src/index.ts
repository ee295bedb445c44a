/** `@stacyvm/sdk`: sandboxes from TypeScript and JavaScript. No dependencies; Node, Bun, Deno and browsers. */
export { Client, type EventOptions, type PullOptions, type PullProgress, type StacyEvent } from "./client.ts";
export type {
  CodeContext,
  CodeContexts,
  CodeError,
  CodeEvent,
  CodeExecution,
  CodeOptions,
  CodeResult,
} from "./code.ts";
export * from "./errors.ts";
export type { FileChange, Files, WriteOptions } from "./files.ts";
export type {
  Admission,
  Boot,
  Checkpoint,
  Directory,
  DirectoryRequest,
  Doctor,
  Duration,
  ExecRecord,
  FileInfo,
  FleetNode,
  Identity,
  Image,
  Key,
  MadeKey,
  MovedSandbox,
  NodeDrain,
  OwnerQuota,
  PoolStatus,
  Process,
  Provider,
  QuotaUsage,
  RemovedNode,
  Sandbox as SandboxInfo,
  SandboxStats,
  Secret,
  SecretRequest,
  Snapshot,
  SnapshotGc,
  SpawnRequest,
  SystemSample,
  SystemStats,
  Template,
  TemplateCreateRequest,
  TemplateRequest,
  Volume,
  VolumeClone,
  VolumeMountRequest,
  VolumeRequest,
  VolumeUsage,
} from "./generated.ts";
export { listeningPorts, parsePorts } from "./listening.ts";
export type { Port, Tunnel } from "./ports.ts";
export type { Command, CommandOptions, ExitStatus, OutputChunk, SignalName, SpawnOptions } from "./process.ts";
export { SandboxProcess } from "./process.ts";
export type { RunOptions, RunResult } from "./run.ts";
export {
  type CheckpointOptions,
  type CreateOptions,
  type ExecOptions,
  type ExecResult,
  type ForkOptions,
  type LogPiece,
  type OutputOptions,
  Sandbox,
  type StreamEvent,
} from "./sandbox.ts";
export { wireOf } from "./schema.ts";
export type { CallOptions, ClientOptions, WebSocketConstructor, WebSocketLike } from "./transport.ts";
