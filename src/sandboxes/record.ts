/** What is stored: the data types of this layer. Times are ms since 1970, durations ms, sizes MiB. */

import { randomBytes } from "node:crypto";
import type { HostDirectory } from "../directories/directory.ts";
import type { Placement } from "../egress/secrets/secret.ts";
import type { WarmContext } from "../interpreter/contexts.ts";
import type { BootReport, SuspendOptions } from "../providers/provider.ts";
import type { SandboxState } from "./state.ts";

/** `pause` keeps the memory, `suspend` frees it; either comes back with the next use. */
export type IdleAction = "destroy" | "pause" | "suspend";

export interface ExpiryPause {
  /** ms that it is kept suspended. */
  keepMs: number;
  /** A use of the suspended one brings it back, for this time (ms); absent: only who asks for that. */
  resumeMs?: number;
  /** Absent: all of its machine. */
  keeps?: SuspendOptions["keeps"];
  /** Since when its time is over, ms since 1970; absent: it is not. */
  over?: number;
}

/** As a spawn or a template asks for it. */
export interface VolumeInput {
  name: string;
  /** Absolute, in the guest; made where it is not there. */
  path: string;
  readOnly?: boolean;
}

/** A volume that a sandbox has. */
export interface VolumeMount {
  /** Of the volume: another one may have its name later. */
  id: string;
  name: string;
  /** Absolute, in the guest. */
  path: string;
  readOnly: boolean;
  /** It has a disk that it could write to, and has it mounted to read only. */
  onlyRead?: true;
  /** Of its machine; absent in what an earlier version wrote: its place in the list. */
  slot?: number;
  /** It is being attached or detached: whoever finds it so does not know how far that came. */
  changing?: "attach" | "detach";
}

/** A machine's place for a volume. `spent`: a volume was taken from it by force. */
export type VolumeSlot = "write" | "read" | "spent";

/** Places beside those of the volumes that it starts with. */
export interface SpareSlots {
  /** For volumes that are written, and for those that are only read. */
  write: number;
  read: number;
}

/** How a sandbox's ports are reached, where that is not as the server has it for all. */
export interface PortRules {
  /** By whoever shows its token or a key, also where the server shows all ports to everybody. */
  closed?: true;
  /** Host name that its programs are told in place of the one that was asked for; `${PORT}` in it is the port. */
  host?: string;
}

/** A volume as it was when its sandbox was saved: in the sandbox, and the size of its disk. */
export type SavedVolume = VolumeMount & { bytes: number };

export interface SandboxRecord {
  id: string;
  /** What its owner calls it, in place of the id (name.ts); no two of an owner have the same. */
  name?: string;
  state: SandboxState;
  provider: string;
  image: string;
  memoryMiB: number;
  vcpus: number;
  diskMiB: number;
  /** Whose it is (owner.ts). */
  owner: string;
  /** The user that the client named, for quotas. */
  ownerId?: string;
  template?: string;
  checkpoint?: string;
  forkedFrom?: string;
  createdAt: number;
  expiresAt: number;
  /** 0: never idle. */
  idleTimeoutMs: number;
  idleAction: IdleAction;
  /** Calls alone are use; absent: whatever runs in it is, too. */
  idleCounts?: "calls";
  /** Suspended because nobody used it, or because its time was over: the next use brings it back. */
  resumeOnUse?: boolean;
  /** At the end of its time it is suspended, and kept. */
  onExpiry?: ExpiryPause;
  /** It ends with the call that it was made for; a server that finds it anew ends it. */
  lent?: true;
  metadata: Record<string, string>;
  /** Hosts that it may connect to; absent: none. */
  allowedHosts?: string[];
  /** Names of the secrets that its programs may use; absent: it was given none when it was made. */
  secrets?: string[];
  /** Absent: none. */
  volumes?: VolumeMount[];
  /** Of the host; absent: none. */
  directories?: HostDirectory[];
  /** All of its machine's; absent: those of its volumes alone. */
  slots?: VolumeSlot[];
  ports?: PortRules;
  /** The request that it was made for, by the key that its client has chosen: one that comes again is answered with this sandbox. */
  request?: { key: string; digest: string };
  boot?: BootReport;
  /** It is on its way to another server, or from one: whose it is, the registry of all decides, and until then it stands still. */
  transit?: Transit;
  failure?: SandboxFailure;
  /** Its machine is there, or may be, and does not answer; the state is the one that it had. */
  unreachable?: { since: number; reason: string };
}

export interface Transit {
  is: "leaving" | "arriving";
  /** Id of the other server. */
  node: string;
  /** ms since 1970 */
  since: number;
}

/** It has time again, or runs again and has what is left: at the end of that it is kept anew. */
export function hasTime({ onExpiry }: SandboxRecord): void {
  if (onExpiry !== undefined) delete onExpiry.over;
}

/** Why a sandbox is in state `error`. */
export interface SandboxFailure {
  code: string;
  message: string;
  phase?: string;
  remedy?: string;
  at: number;
  /** The last lines of the guest's console. */
  console: string[];
}

/** One of the owner's secrets, by its name. */
export interface TemplateSecret {
  name: string;
  /** The variable that has its placeholder; empty: its name's. */
  injectAt: string;
}

export interface Template {
  owner: string;
  /** Every owner finds it under its name, unless it has one of its own. */
  shared?: boolean;
  name: string;
  version: number;
  image: string;
  description: string;
  /** Shell commands run once in the golden machine before it is saved. */
  setup: string[];
  /** A command that runs in it when it is saved, and goes on in each copy; and the one that says by its success that it is ready. */
  start?: { command: string; ready?: string };
  /** Contexts of the code interpreter that it is saved with. */
  contexts?: WarmContext[];
  allowedHosts: string[];
  memoryMiB: number;
  vcpus: number;
  ttlMs: number;
  env: Record<string, string>;
  secrets: TemplateSecret[];
  /** Volumes of whoever spawns from it, by name. */
  volumes?: VolumeInput[];
  spareSlots?: SpareSlots;
  /** Warm machines kept ready. */
  poolSize: number;
  provider?: string;
  metadata: Record<string, string>;
  createdAt: number;
  updatedAt: number;
}

/** 0 in a limit: none of its own. */
export interface OwnerQuota {
  owner: string;
  /** A user of this owner, or `*`: all of them together. */
  ownerId: string;
  maxSandboxes: number;
  maxTtlMs: number;
  maxExecTimeoutMs: number;
  createdAt: number;
  updatedAt: number;
}

export interface CheckpointRecord {
  id: string;
  sandboxId: string;
  provider: string;
  image: string;
  memoryMiB: number;
  vcpus: number;
  diskMiB: number;
  owner: string;
  ownerId?: string;
  name?: string;
  bytes: number;
  /** Saved with it; absent: it had none. */
  volumes?: SavedVolume[];
  /** As of a sandbox. */
  slots?: VolumeSlot[];
  createdAt: number;
  /** Nobody was told of it yet: a start that finds it so removes it. */
  saving?: true;
}

export interface ExecRecord {
  sandboxId: string;
  command: string;
  startedAt: number;
  durationMs: number;
  /** Absent when it could not be started. */
  exitCode?: number;
  outcome: "completed" | "timeout" | "cancelled" | "failed";
}

/** Where the value is: with this server, or in a file or a variable of it. */
export type SecretSource =
  | { kind: "value" }
  | { kind: "file"; path: string }
  | { kind: "environment"; variable: string };

export interface SecretRecord {
  owner: string;
  name: string;
  /** It is this sandbox's alone, and goes with it. */
  sandbox?: string;
  hosts: string[];
  placement: Placement;
  placeholder: string;
  source: SecretSource;
  /** Each sandbox of the owner gets it. */
  everywhere?: true;
  /** The value, sealed. */
  sealed?: string;
  createdAt: number;
  updatedAt: number;
}

export function newSandboxId(): string {
  return `sb-${randomBytes(4).toString("hex")}`;
}

export function newCheckpointId(): string {
  return `cp-${randomBytes(4).toString("hex")}`;
}
