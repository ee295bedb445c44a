/** On which ports programs of a sandbox listen: what its own kernel says. */
import type { Sandbox } from "./sandbox.ts";

/** Ports on which programs in the guest listen for TCP; not those of the agent, which serves the guest's way out. */
export async function listeningPorts(sandbox: Sandbox, signal?: AbortSignal): Promise<number[]> {
  const command = "ls -l /proc/1/fd 2>/dev/null; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null";
  return parsePorts((await sandbox.exec(command, { timeout: "20s", signal })).stdout);
}

/** What the first process has open, then lines of /proc/net/tcp and tcp6 (proc_pid_net(5)): state 0A is LISTEN, the tenth field the inode. */
export function parsePorts(text: string): number[] {
  const own = new Set([...text.matchAll(/socket:\[(\d+)\]/g)].map(([, inode]) => inode));
  const listening = /^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A \S+ \S+ \S+ +\d+ +\d+ (\d+)/gm;
  const ports = [...text.matchAll(listening)]
    .filter(([, , inode]) => !own.has(inode))
    .map(([, port = ""]) => Number.parseInt(port, 16));
  return [...new Set(ports)].sort((a, b) => a - b);
}
