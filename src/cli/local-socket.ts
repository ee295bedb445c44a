/**
 * How commands of one user find the server of a data directory: a UNIX socket in it, which only its owner may open. Whoever
 * connects is told the address and a key, and is counted as long as the connection lives, so that a server which runs inside a
 * command knows when nobody needs it any more. A dead server leaves a socket that refuses, never a stale promise, and no key
 * is ever on the disk.
 */
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { connectUnix, listenUnix } from "../host/unix-socket.ts";

const NAME = "server.sock";
const GREETING_MS = 5_000;
const MAX_GREETING = 4_096;
const END = "end\n";

export interface LocalServer {
  url: string;
  /** Absent: the server asks for none. */
  key?: string;
  pid: number;
  /** Of a server that a command has started: what it was started with (`settingsMark`). It ends when it is asked to. */
  background?: string;
}

export interface Announcement {
  /** Resolves at a moment when nobody is connected; from then on nobody is let in. */
  retire(signal?: AbortSignal): Promise<void>;
  /** Commands that use the server now. */
  readonly users: number;
  close(): Promise<void>;
}

/**
 * The caller holds the lock of the data directory, so what lies there is a dead server's.
 * @param asked somebody wants it to end
 */
export async function announce(root: string, server: LocalServer, asked?: () => void): Promise<Announcement> {
  await rm(join(root, NAME), { force: true });
  const users = new Set<Socket>();
  let changed = (): void => {};
  const listener = createServer((socket) => {
    users.add(socket);
    socket.on("error", () => {});
    socket.on("data", (said) => {
      if (said.toString() === END) asked?.();
    });
    socket.once("close", () => {
      users.delete(socket);
      changed();
    });
    socket.write(`${JSON.stringify({ ...server, others: users.size - 1 })}\n`);
  });
  await listenUnix(listener, root, NAME);
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= new Promise<void>((done) => {
      listener.close(() => done());
      for (const socket of users) socket.destroy();
    }).then(() => rm(join(root, NAME), { force: true }));
    return closed;
  };
  return {
    get users() {
      return users.size;
    },
    async retire(signal) {
      while (users.size > 0 && signal?.aborted !== true) {
        await new Promise<void>((resolve) => {
          changed = resolve;
          signal?.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      await close(); // in the same turn: whoever has not been greeted finds a closed socket and asks again
    },
    close,
  };
}

export interface LocalConnection extends LocalServer, Disposable {
  /** Commands that used it already. */
  others: number;
  /** Asks a background server to end when nobody uses it any more. */
  end(): void;
}

/** `undefined` when no server has announced itself. Disposing tells it that it is no longer needed. */
export async function findLocal(root: string): Promise<LocalConnection | undefined> {
  let socket: Socket;
  try {
    socket = await connectUnix(root, NAME, { timeoutMs: 0 });
  } catch {
    return undefined;
  }
  const text = await new Promise<string>((resolve) => {
    let said = "";
    const timer = setTimeout(() => socket.destroy(), GREETING_MS);
    const end = (): void => {
      clearTimeout(timer);
      resolve(said);
    };
    socket.once("close", end);
    socket.setEncoding("utf8").on("data", (part) => {
      said += part;
      if (said.includes("\n") || said.length > MAX_GREETING) end();
    });
  });
  const server = parse(text);
  if (server === undefined) {
    socket.destroy();
    return undefined;
  }
  socket.unref();
  return {
    ...server,
    end: () => void socket.end(END),
    [Symbol.dispose]: () => socket.destroySoon(),
  };
}

function parse(text: string): (LocalServer & { others: number }) | undefined {
  if (!text.endsWith("\n")) return undefined;
  try {
    const { url, key, pid, background, others } = JSON.parse(text) as Partial<LocalConnection>;
    if (typeof url !== "string" || typeof pid !== "number") return undefined;
    return {
      ...{ url, pid, others: typeof others === "number" ? others : 0 },
      ...(typeof key === "string" ? { key } : {}),
      ...(typeof background === "string" ? { background } : {}),
    };
  } catch {
    return undefined;
  }
}
