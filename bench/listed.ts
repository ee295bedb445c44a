/** Records for a list of sandboxes: failed ones, which stay listed until they are destroyed and hold no machine. */
import type { SandboxRecord } from "../src/sandboxes/record.ts";
import { Store } from "../src/sandboxes/store.ts";

export const LISTED = 1_000;

export function fillList(path: string): void {
  using store = new Store(path);
  const now = Date.now();
  for (let i = 0; i < LISTED; i++) void store.putSandbox(failedSandbox(i, now), now);
}

export function failedSandbox(i: number, now: number): SandboxRecord {
  return {
    id: `sb-${i.toString(16).padStart(8, "0")}`,
    state: "error",
    owner: "default",
    provider: "qemu",
    image: "stacyvm/busybox",
    memoryMiB: 256,
    vcpus: 1,
    diskMiB: 1_024,
    createdAt: now - i,
    expiresAt: now + 86_400_000,
    idleTimeoutMs: 0,
    idleAction: "destroy",
    metadata: { purpose: "bench", number: String(i) },
    failure: { code: "machine-exited", message: "made for the benchmark", at: now, console: [] },
  };
}
