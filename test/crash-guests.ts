/**
 * The guests whose daemon is killed, through the API: what they hold in memory and on disk can be asked for. Linux under QEMU, and
 * the bare guest under Firecracker, which is ready in milliseconds and has neither processes nor files; or Linux there, too.
 */
import assert from "node:assert/strict";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";

export interface CrashGuest {
  monitor: "qemu" | "firecracker";
  /** Why it cannot run on this host. */
  whyNot(): Promise<string | undefined>;
  /** It can be started anew from its disk alone. */
  hasSystem: boolean;
  /** What is asked of a few of them at once takes about so long, ms: a moment within it is in the middle of something. */
  spreadMs: number;
  /** Of the server. */
  config?: string;
  spawn: { image: string; memory_mb: number; disk_mb?: number; ttl: string };
  /** After a spawn: from then on it counts. @returns the process that does, if it is one; `undefined` when the daemon was killed first */
  begin(ask: Ask): Promise<{ process?: string } | undefined>;
  /** Counts on in the guest's memory: 1, 2, 3, ... */
  count(ask: Ask): Promise<number>;
  /** @param text without spaces. @returns whether it was answered */
  write(ask: Ask, text: string): Promise<boolean>;
  /** What was written last; empty at the beginning. */
  read(ask: Ask): Promise<string>;
  echo(ask: Ask): Promise<string | undefined>;
}

/** A call of the sandbox's own paths; `undefined` when the daemon was killed before it answered. */
// biome-ignore lint/suspicious/noExplicitAny: any answer's body
export type Ask = (method: string, path: string, body?: unknown) => Promise<{ body: any } | undefined>;

/** A shell that holds its number in memory, and answers over two pipes. */
const COUNTER = "mkfifo /ask /say; n=0; while read -r _ </ask; do n=$((n+1)); echo $n >/say; done";
const COUNT = "while [ ! -p /say ]; do :; done; echo >/ask; cat /say";

async function output(ask: Ask, command: object): Promise<string | undefined> {
  const answer = await ask("POST", "/exec", { ...command, timeout: "60s" });
  if (answer === undefined) return undefined;
  assert.equal(answer.body.exit_code, 0, JSON.stringify(answer.body));
  return answer.body.stdout.trim();
}

const argv = (command: string, ...args: string[]): object => ({ command, args, mode: "argv" });

const linux: CrashGuest = {
  monitor: "qemu",
  whyNot: async () => undefined,
  hasSystem: true,
  spreadMs: 2_500,
  spawn: { image: "stacyvm/busybox", memory_mb: 128, ttl: "2h" },
  begin: async (ask) => {
    const answer = await ask("POST", "/processes", { command: COUNTER });
    return answer === undefined ? undefined : { process: answer.body.id };
  },
  count: async (ask) => Number(await output(ask, { command: COUNT })),
  write: async (ask, content) => (await ask("POST", "/files", { path: "/workspace/f", content })) !== undefined,
  read: async (ask) => (await output(ask, { command: "cat /workspace/f 2>/dev/null || true" })) ?? "",
  echo: (ask) => output(ask, { command: "echo fine" }),
};

const FIRECRACKER = "providers: { default: firecracker }\n";

const bare: CrashGuest = {
  monitor: "firecracker",
  whyNot,
  hasSystem: false,
  spreadMs: 800,
  config: FIRECRACKER,
  spawn: { image: "stacyvm/bare", memory_mb: 128, ttl: "2h" },
  begin: async () => ({}),
  count: async (ask) => Number(await output(ask, argv("counter"))),
  write: async (ask, text) => (await output(ask, argv("block", "write", "0", text))) !== undefined,
  read: async (ask) => (await output(ask, argv("block", "read", "0"))) ?? "",
  echo: (ask) => output(ask, argv("echo", "fine")),
};

export const CRASH_GUESTS = {
  qemu: linux,
  firecracker: bare,
  "firecracker-linux": {
    ...{ ...linux, monitor: "firecracker", whyNot: whyNotLinux, config: FIRECRACKER },
    // Where its kernel is interpreted; elsewhere it is less, and the kills come when all is done more often.
    spreadMs: 5_000,
    // The shape of the other tests with Linux under Firecracker, which hand its golden snapshot on.
    spawn: { ...linux.spawn, memory_mb: 256, disk_mb: 256 },
  },
} satisfies Record<string, CrashGuest>;

/** By `STACYVM_CRASH_VMM`: `firecracker`, `firecracker-linux`; Linux under QEMU if that says nothing. */
export const crashGuest: CrashGuest =
  CRASH_GUESTS[process.env.STACYVM_CRASH_VMM as keyof typeof CRASH_GUESTS] ?? CRASH_GUESTS.qemu;
