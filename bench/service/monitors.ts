/** The monitors that a server has started, and the memory that each has for itself alone. */
import { readdir, readFile } from "node:fs/promises";
import { processMemory } from "../../src/host/process-memory.ts";

/** Descendants of the process that are a VMM, by pid. */
export async function monitorsOf(server: number): Promise<number[]> {
  const processes = new Map<number, { parent: number; name: string }>();
  for (const entry of await readdir("/proc")) {
    const stat = /^\d+$/.test(entry) ? await readFile(`/proc/${entry}/stat`, "latin1").catch(() => "") : "";
    const [, name = "", parent = ""] = /^\d+ \((.*)\) \S (\d+)/s.exec(stat) ?? [];
    if (name !== "") processes.set(Number(entry), { parent: Number(parent), name });
  }
  const belongs = (pid: number): boolean => {
    for (let at = processes.get(pid); at !== undefined; at = processes.get(at.parent))
      if (at.parent === server) return true;
    return false;
  };
  return [...processes]
    .filter(([pid, { name }]) => /^(qemu|firecracker)/.test(name) && belongs(pid))
    .map(([pid]) => pid);
}

export async function privateMiB(pid: number): Promise<number> {
  return (await processMemory(pid)).privateBytes / 2 ** 20;
}

/** Of the host, MiB. */
export async function availableMiB(): Promise<number> {
  return field(await readFile("/proc/meminfo", "latin1"), "MemAvailable");
}

/** What of a process is in memory, MiB. */
export async function residentMiB(pid: number): Promise<number> {
  return field(await readFile(`/proc/${pid}/status`, "latin1"), "VmRSS");
}

function field(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) / 1024;
}
