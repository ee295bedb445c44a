/**
 * Host to guest over Firecracker's vsock socket (docs/vsock.md): connect to `v.sock`, send `CONNECT <port>\n`, read
 * `OK <host port>\n`. When nobody listens in the guest the socket just closes; while the guest's driver is not ready the
 * request waits without an answer, and an expired one may never be told. So each attempt has a short limit of its own.
 *
 * What follows the request's line waits in the socket until the guest has taken the connection (Firecracker reads the line's end byte by byte),
 * so the first bytes for the guest can be sent with it.
 */
import type { Socket } from "node:net";
import { StacyError } from "../../host/error.ts";
import { connectUnix } from "../../host/unix-socket.ts";
import type { ConnectOptions } from "../vmm.ts";

/** Firecracker's longest answer is `OK 4294967295\n`. */
const MAX_ANSWER = 32;
const FIRST_ATTEMPT_MS = 250;
/** Firecracker itself gives a request up after 2 s; a shorter wait would ask a slow guest again and again, and each request is work for it. */
const LONGEST_ATTEMPT_MS = 2_500;
const PAUSE_MS = 5;

export interface DialOptions extends ConnectOptions {
  port: number;
  /** Settles when the process is gone for good. */
  gone: Promise<StacyError>;
}

/**
 * @returns also how long the guest took to take the connection, and whether the greeting has been sent
 * @throws StacyError `timeout`, `cancelled`, or what `gone` gives
 */
export async function dialGuest(
  dir: string,
  socketName: string,
  options: DialOptions,
): Promise<{ socket: Socket; tookMs: number; greeted: boolean }> {
  const limit = options.timeoutMs ?? 10_000;
  const deadline = performance.now() + limit;
  let gone: StacyError | undefined;
  void options.gone.then((error) => {
    gone = error;
  });
  // With the first attempt only: a greeting tells the time, and a guest that takes the connection late would be told an old one.
  let { greeting } = options;
  for (let attemptMs = FIRST_ATTEMPT_MS; ; attemptMs = Math.min(2 * attemptMs, LONGEST_ATTEMPT_MS)) {
    options.signal?.throwIfAborted();
    if (gone !== undefined) throw gone;
    const left = deadline - performance.now();
    if (left <= 0) {
      throw new StacyError("timeout", `the guest did not take a vsock connection within ${limit} ms`, {
        phase: "agent",
        remedy: "look at console.log of the machine",
      });
    }
    const socket = await connectUnix(dir, socketName, {
      timeoutMs: left,
      gone: options.gone,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    const asked = performance.now();
    const first = greeting?.();
    if (await handshake(socket, options.port, Math.min(attemptMs, left), options.signal, first)) {
      return { socket, tookMs: performance.now() - asked, greeted: first !== undefined };
    }
    greeting = undefined;
    await new Promise((wake) => setTimeout(wake, PAUSE_MS));
  }
}

/** One attempt. @returns `undefined` when nobody listens in the guest, or it does not answer */
export async function dialGuestOnce(
  dir: string,
  socketName: string,
  options: DialOptions & { timeoutMs: number },
): Promise<Socket | undefined> {
  const socket = await connectUnix(dir, socketName, options);
  return (await handshake(socket, options.port, options.timeoutMs, options.signal)) ? socket : undefined;
}

/**
 * False when this attempt failed; the socket is destroyed then. Reads by `readable`, not `data`: it must be handed over
 * neither flowing, which loses bytes, nor paused, which the next reader would not undo.
 */
function handshake(
  socket: Socket,
  port: number,
  timeoutMs: number,
  signal?: AbortSignal,
  greeting: Uint8Array = Buffer.alloc(0),
): Promise<boolean> {
  return new Promise((settle) => {
    let answer: Buffer = Buffer.alloc(0);
    const finish = (ok: boolean): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", fail);
      socket.off("readable", read);
      socket.off("close", fail);
      if (!ok) socket.destroy();
      settle(ok);
    };
    const read = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      answer = answer.length === 0 ? chunk : Buffer.concat([answer, chunk]);
      const end = answer.indexOf(0x0a);
      if (end < 0) {
        if (answer.length > MAX_ANSWER) finish(false);
        return;
      }
      // What came behind the line is the agent's.
      if (answer.length > end + 1) socket.unshift(answer.subarray(end + 1));
      finish(answer.toString("latin1", 0, 3) === "OK ");
    };
    const fail = (): void => finish(false);
    const timer = setTimeout(fail, timeoutMs);
    signal?.addEventListener("abort", fail, { once: true });
    socket.on("readable", read);
    // `end` needs a reader to be seen; the close comes with it.
    socket.on("close", fail);
    // One write: the other side drops a connection whose first bytes come in pieces.
    socket.write(Buffer.concat([Buffer.from(`CONNECT ${port}\n`), greeting]));
  });
}
