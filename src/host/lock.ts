/**
 * A lock between processes on this host that the kernel releases when its holder dies, however it dies: an abstract UNIX
 * socket, named by what it guards. There is no file to go stale, and a waiter is woken by the holder's hang-up.
 */
import { createHash } from "node:crypto";
import { connect, createServer, type Server } from "node:net";
import { errno } from "./error.ts";

export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

/** Takes the lock, or `undefined` when another process (or another caller in this one) holds it. */
export async function tryLock(what: string): Promise<Lock | undefined> {
  const server = createServer((waiter) => {
    // A waiter is only held: closing the server closes it, which wakes it.
    waiters.add(waiter);
    waiter.on("error", () => {});
    waiter.on("close", () => waiters.delete(waiter));
    waiter.unref();
  });
  const waiters = new Set<import("node:net").Socket>();
  const taken = await new Promise<boolean>((resolve, reject) => {
    server.once("error", (error) => (errno(error) === "EADDRINUSE" ? resolve(false) : reject(error)));
    server.listen(socketName(what), () => resolve(true));
  });
  if (!taken) return undefined;
  server.unref();
  return lockOf(server, waiters);
}

function lockOf(server: Server, waiters: Set<import("node:net").Socket>): Lock {
  let released: Promise<void> | undefined;
  const release = (): Promise<void> => {
    released ??= new Promise((done) => {
      server.close(() => done());
      for (const waiter of waiters) waiter.destroy();
    });
    return released;
  };
  return { release, [Symbol.asyncDispose]: release };
}

/** Takes the lock, waiting for its holder. @param signal gives up with its reason */
export async function lock(what: string, signal?: AbortSignal): Promise<Lock> {
  for (;;) {
    signal?.throwIfAborted();
    const taken = await tryLock(what);
    if (taken !== undefined) return taken;
    await holderGone(what, signal);
  }
}

function holderGone(what: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketName(what));
    const abort = (): void => {
      socket.destroy();
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    socket.on("error", () => {});
    socket.once("close", () => {
      signal?.removeEventListener("abort", abort);
      resolve();
    });
    socket.resume();
  });
}

function socketName(what: string): string {
  return `\0stacyvm-lock-${createHash("sha256").update(what).digest("hex").slice(0, 40)}`;
}
