/** Waits until a guest has nothing to do, as the host's kernel sees it: each of its vCPUs sleeps. */
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** Firecracker's names of the threads that are vCPUs. */
const VCPU = /^fc_vcpu /;
const LOOK_MS = 2;
/** A thread may sleep for a moment in the kernel; a guest that has done sleeps longer. */
const LOOKS_IN_A_ROW = 2;

/** @param limitMs a guest that is busy for longer is not waited for. Never rejects */
export async function guestAtRest(pid: number, limitMs: number): Promise<void> {
  const deadline = performance.now() + limitMs;
  const vcpus = await vcpusOf(pid).catch(() => []);
  if (vcpus.length === 0) return;
  for (let looks = 0; looks < LOOKS_IN_A_ROW && performance.now() < deadline; ) {
    const asleep = await Promise.all(vcpus.map(sleeps)).catch(() => undefined);
    if (asleep === undefined) return; // its end is told elsewhere
    looks = asleep.every(Boolean) ? looks + 1 : 0;
    if (looks < LOOKS_IN_A_ROW) await sleep(LOOK_MS);
  }
}

/** Directories of the threads. */
async function vcpusOf(pid: number): Promise<string[]> {
  const threads = (await readdir(`/proc/${pid}/task`)).map((tid) => `/proc/${pid}/task/${tid}`);
  const names = await Promise.all(threads.map((thread) => readFile(`${thread}/comm`, "latin1")));
  return threads.filter((_, at) => VCPU.test(names[at] ?? ""));
}

/** proc_pid_stat(5): the state stands behind the name in parentheses. */
async function sleeps(thread: string): Promise<boolean> {
  const stat = await readFile(`${thread}/stat`, "latin1");
  return stat[stat.lastIndexOf(")") + 2] === "S";
}
