import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { guestAtRest } from "./at-rest.ts";

/** A process whose second thread is named as Firecracker's vCPUs are, and is busy for `ms`. */
async function machine(ms: number): Promise<{ pid: number; end(): void }> {
  const script = `
import ctypes, threading, time
def vcpu():
    ctypes.CDLL(None).prctl(15, b"fc_vcpu 0", 0, 0, 0)
    print("runs", flush=True)
    until = time.monotonic() + ${ms / 1000}
    while time.monotonic() < until: pass
    print("rests", flush=True)
    time.sleep(60)
threading.Thread(target=vcpu, daemon=True).start()
time.sleep(60)`;
  const child = spawn("python3", ["-c", script], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return { pid: child.pid as number, end: () => child.kill("SIGKILL") };
}

test("a guest that is busy is waited for until its limit, one that rests is not", async () => {
  const busy = await machine(60_000);
  const resting = await machine(0);
  try {
    const begun = performance.now();
    await guestAtRest(busy.pid, 300);
    assert.ok(performance.now() - begun >= 290);
    await guestAtRest(resting.pid, 60_000);
  } finally {
    busy.end();
    resting.end();
  }
});

test("a process that is gone, or that has no vCPU, is not waited for", async () => {
  await guestAtRest(process.pid, 60_000);
  await guestAtRest(2 ** 22 + 1, 60_000);
});
