/** UNIX sockets in directories of any length: connecting to those that another process makes, and listening. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { constants, open } from "node:fs/promises";
import { connect, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { StacyError } from "./error.ts";

/** `sun_path` holds 108 bytes with its final zero. */
const MAX_PATH = 107;
const EAGER_MS = 500;
/** Linux, include/uapi/asm-generic/fcntl.h; Node does not name it. */
const O_PATH = 0o10000000;

export interface ConnectUnixOptions {
  /** The whole budget in ms. */
  timeoutMs: number;
  signal?: AbortSignal;
  /** Settles when the peer is gone for good, which ends the waiting with the error that this gives. */
  gone?: Promise<StacyError>;
}

/**
 * Connects to `dir/name`, trying again each ms until somebody listens: bind comes before listen, so the file's existence
 * proves nothing (firecracker.md 13.9). A path that is too long for the kernel goes through an open directory. A link in its place is not
 * followed: who makes the socket may be hostile, and would have us speak to another machine's.
 * @throws StacyError `timeout`, or what `gone` gives
 */
export async function connectUnix(dir: string, name: string, options: ConnectUnixOptions): Promise<Socket> {
  const path = join(dir, name);
  if (Buffer.byteLength(path) <= MAX_PATH) return retry(path, path, options);
  const handle = await open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await retry(`/proc/self/fd/${handle.fd}/${name}`, path, options);
  } finally {
    await handle.close();
  }
}

/**
 * Listens on `dir/name`, where nothing may be, for this user alone. Through the open directory, since a path may be longer than an
 * address. That stays open as long as the server: whose end removes the socket by the same path, which would by then lead to a directory of
 * somebody else's.
 */
export async function listenUnix(server: Server, dir: string, name: string): Promise<void> {
  const handle = await open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  server.once("close", () => void handle.close());
  try {
    await new Promise<void>((resolve, reject) => {
      // Stays: a connection that the system could not hand over is told like this, and would end the process.
      server.on("error", reject);
      // The bind is part of this call, so no other code sees the mask.
      const mask = process.umask(0o177);
      server.listen(`/proc/self/fd/${handle.fd}/${name}`, resolve);
      process.umask(mask);
    });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function retry(address: string, shown: string, options: ConnectUnixOptions): Promise<Socket> {
  const begun = performance.now();
  const deadline = begun + options.timeoutMs;
  let gone: StacyError | undefined;
  void options.gone?.then((error) => {
    gone = error;
  });
  for (;;) {
    options.signal?.throwIfAborted();
    const result = await attempt(address);
    if (!(result instanceof Error)) return result;
    if (gone !== undefined) throw gone;
    if (performance.now() > deadline) {
      throw new StacyError("timeout", `nobody listens on ${shown} after ${options.timeoutMs} ms`, { cause: result });
    }
    // Who starts listens within milliseconds; who does not, for whatever reason, is asked less often.
    await new Promise((wake) => setTimeout(wake, performance.now() - begun < EAGER_MS ? 1 : 25));
  }
}

function attempt(address: string): Promise<Socket | Error> {
  let fd: number;
  try {
    fd = openSync(address, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    return Promise.resolve(error as Error);
  }
  const connected = fstatSync(fd).isSocket()
    ? connectTo(`/proc/self/fd/${fd}`)
    : Promise.resolve(new Error(`${address} is no socket`));
  return connected.finally(() => closeSync(fd));
}

function connectTo(address: string): Promise<Socket | Error> {
  return new Promise((resolve) => {
    const socket = connect(address);
    socket.once("error", resolve);
    socket.once("connect", () => {
      socket.removeListener("error", resolve);
      // Whoever takes the socket adds the real handler; without one an error in between would end the process.
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}
