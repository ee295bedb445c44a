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

/** Of what that is, MiB: the guest's memory, translated code (of an emulated processor), and the monitor's own. @returns absent: it has no machine */
export async function privateParts(pid: number): Promise<{ guest: number; code: number; own: number } | undefined> {
  const parts = { guest: 0, code: 0, own: 0 };
  let part: keyof typeof parts = "own";
  let loaded = false;
  for (const line of (await readFile(`/proc/${pid}/smaps`, "latin1")).split("\n")) {
    const mapping = /^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+ *(.*)/.exec(line);
    if (/\/memory\.(bin|ground)( \(deleted\))?$/.test(mapping?.[2] ?? "")) {
      part = "guest";
      loaded = true;
    } else if (mapping !== null) part = mapping[1]?.startsWith("rwx") === true ? "code" : "own";
    else if (line.startsWith("Anonymous:")) parts[part] += Number(/\d+/.exec(line)?.[0]) / 1024;
  }
  return loaded ? parts : undefined;
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
