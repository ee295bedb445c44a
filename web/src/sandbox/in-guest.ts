/** What only the guest's own kernel knows, read with its shell. */
import type { Sandbox } from "../../../sdk/src/index.ts";

export interface GuestProcess {
  pid: number;
  parent: number;
  state: string;
  /** Bytes. */
  memory: number;
  command: string;
}

const PROCESSES = `for d in /proc/[0-9]*; do
  { read -r stat < $d/stat; } 2>/dev/null || continue
  printf '%s\\t' "$stat"
  tr '\\0\\n\\t' '   ' < $d/cmdline 2>/dev/null
  echo
done`;
const PAGE_BYTES = 4_096;

export async function guestProcesses(sandbox: Sandbox): Promise<GuestProcess[]> {
  return parseProcesses(await output(sandbox, PROCESSES));
}

/** Lines of /proc/PID/stat (proc_pid_stat(5)), each with its command line behind a tab. Those of the kernel are left out. */
export function parseProcesses(text: string): GuestProcess[] {
  return text.split("\n").flatMap((line) => {
    const [stat = "", command = ""] = line.split("\t", 2);
    const [, pid, name = "", rest = ""] = /^(\d+) \((.*)\) (.*)$/s.exec(stat) ?? [];
    if (pid === undefined) return [];
    const fields = rest.split(" ");
    const parent = Number(fields[1]);
    // kthreadd and its children.
    if (Number(pid) === 2 || parent === 2) return [];
    const memory = Number(fields[21] ?? 0) * PAGE_BYTES;
    return [{ pid: Number(pid), parent, state: fields[0] ?? "", memory, command: command.trim() || `[${name}]` }];
  });
}

/** As its commands get it. */
export async function environment(sandbox: Sandbox): Promise<[string, string][]> {
  const text = await output(sandbox, "env");
  return text
    .split("\n")
    .filter((line) => /^\w+=/.test(line))
    .map((line): [string, string] => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)])
    .sort(([a], [b]) => a.localeCompare(b));
}

async function output(sandbox: Sandbox, command: string): Promise<string> {
  return (await sandbox.exec(command, { timeout: "20s" })).stdout;
}
