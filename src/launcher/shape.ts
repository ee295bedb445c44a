/**
 * A shape is everything that a saved machine depends on; its canonical digest is the snapshot's key. A changed shape is
 * another key, so nothing is ever restored into what it does not fit.
 */
import { createHash } from "node:crypto";
import type { WarmContext } from "../interpreter/contexts.ts";
import type { VolumeAccess } from "../vmm/vmm.ts";

export interface Shape {
  /** Version of this structure and of the agent's handshake; a change makes all old snapshots unused. */
  format: 1;
  vmm: "firecracker" | "qemu";
  /**
   * Version, accelerator (native KVM, interpreted, emulated), machine type, CPU model, the monitor's own part of the command
   * line, and under KVM the host's CPU and kernel (`Vmm.identity`).
   */
  vmmIdentity: Record<string, string>;
  guest: "linux" | "bare";
  vcpus: number;
  memoryMiB: number;
  diskMiB: number;
  /** `sha256:<hex>` of the base image, or `none` for the bare guest. */
  imageDigest: string;
  /** sha256 of the file that is booted as kernel, and of the initramfs (agent and modules). */
  kernel: string;
  initramfs: string;
  /** The rest of the command line: what this kernel and this image need. */
  cmdline: string;
  /** Environment that the setup commands ran with, and the commands. */
  setup: string[];
  setupEnv: Record<string, string>;
  /** Hosts that they could connect to; absent: none. */
  setupHosts?: string[];
  /** What was started before it was saved. */
  start?: { command: string; ready?: string; env: Record<string, string> };
  /** Contexts that run in it, and the digests of their drivers. */
  contexts?: WarmContext[];
  drivers?: string[];
  /** Slots for volumes, in their order; absent: none. */
  slots?: VolumeAccess[];
}

/** sha256 (hex) of the canonical JSON: keys sorted, no white space. */
export function snapshotKey(shape: Shape): string {
  return createHash("sha256").update(canonicalJson(shape)).digest("hex");
}

export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, v]) => v !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}
