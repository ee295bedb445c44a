/**
 * Where a machine's saved state goes. QEMU may start no program (arguments.ts, `-sandbox`), and before 8.2 it cannot write a migration to a
 * file itself: it connects to a socket of ours in the machine's directory then, and what comes is written here.
 */
import { lchown, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { MONITOR_BOUNDS } from "../../host/bounds.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
import { withTimeLimit } from "../../host/time-limit.ts";
import { listenUnix } from "../../host/unix-socket.ts";
import { takeBack } from "../take-back.ts";
import { RUN_DIR } from "./arguments.ts";

/** `file:` came with QEMU 8.2. */
export function hasFileUri(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > 8 || (major === 8 && minor >= 2);
}

/** In the machine's directory; relative names are the same for QEMU, whose working directory it is. */
const SAVE_SOCKET = `${RUN_DIR}/save.sock`;
const SAVE_FILE = `${RUN_DIR}/save.bin`;

/** For a connection that QEMU has made already. */
const ACCEPT_MS = 10_000;

/** The most that a QEMU can have to say of its machine, bytes. @param memoryMiB that is in the stream */
export function mostSaved(memoryMiB: number): number {
  // Each page has its address before it.
  return Math.ceil(memoryMiB * 2 ** 20 * 1.01) + MONITOR_BOUNDS.stateBytes;
}

export interface SaveTarget {
  /** For `migrate`. */
  uri: string;
  /** Why the file could not be written. QEMU only learns that nobody reads any more. */
  readonly failure?: StacyError | undefined;
  /** Settles with it at once. Never rejects. */
  readonly failed: Promise<StacyError>;
  /** After QEMU has said that it is saved: waits for the last byte, and puts the file in its place. */
  finish(): Promise<void>;
  /** Of a save that failed, and after `finish`. */
  close(): Promise<void>;
}

/**
 * A QEMU that its guest has taken over has no end of what it could write: what is more than `mostBytes` is no saved machine.
 * @param dir the machine's @param path absolute, on the same filesystem
 */
export async function saveTarget(version: string, dir: string, path: string, mostBytes: number): Promise<SaveTarget> {
  const own = join(dir, SAVE_FILE);
  // Where only we write.
  const ours = join(dir, "save.bin");
  await mkdir(join(dir, RUN_DIR), { recursive: true, mode: 0o700 }); // of a machine that an earlier version started
  // Of a save that a server did not live to end.
  await Promise.all([rm(own, { force: true }), rm(ours, { force: true })]);
  const tooLarge = (): StacyError =>
    new StacyError(
      "too-large",
      `QEMU wrote more than ${mostBytes} bytes, and this machine is not so large: it is not saved`,
    );
  if (hasFileUri(version)) {
    // In its cell it makes no files.
    await (await open(own, "wx", 0o600)).close();
    await giveToQemu(dir, own);
    return {
      uri: `file:${SAVE_FILE}`,
      failed: new Promise(() => {}),
      async finish() {
        // Whoever loads it runs under a user of its own, and would get a copy of all that it may not read.
        await takeBack(own, path, 0o644);
        if ((await stat(path)).size <= mostBytes) return;
        await rm(path);
        throw tooLarge();
      },
      close: () => rm(own, { force: true }),
    };
  }
  const file = await open(ours, "wx", 0o600);
  const written = Promise.withResolvers<void>();
  written.promise.catch(() => {});
  let taken: Socket | undefined;
  const accepted = Promise.withResolvers<void>();
  let failure: StacyError | undefined;
  const failed = Promise.withResolvers<StacyError>();
  const fail = (error: StacyError): StacyError => {
    failure ??= error;
    failed.resolve(failure);
    return failure;
  };
  let bytes = 0;
  const server = createServer((socket) => {
    taken = socket;
    accepted.resolve();
    server.close(); // one
    socket.on("error", written.reject);
    void (async () => {
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > mostBytes) throw fail(tooLarge());
        await file.writeFile(chunk).catch((error: unknown) => {
          throw fail(asStacyError(error));
        });
      }
    })().then(written.resolve, written.reject);
  });
  const close = async (): Promise<void> => {
    server.close();
    taken?.destroy();
    await file.close();
    await Promise.all([rm(ours, { force: true }), rm(join(dir, SAVE_SOCKET), { force: true })]);
  };
  try {
    await listen(server, dir);
  } catch (error) {
    await close();
    throw asStacyError(error);
  }
  return {
    uri: `unix:${SAVE_SOCKET}`,
    get failure() {
      return failure;
    },
    failed: failed.promise,
    async finish() {
      // It can have sent all of it before we have come to take its connection.
      await withTimeLimit(accepted.promise, ACCEPT_MS, () => {
        return new StacyError("internal", "QEMU says that it saved the machine, and sent nothing");
      });
      await written.promise;
      await rename(ours, path);
    },
    close,
  };
}

async function listen(server: Server, dir: string): Promise<void> {
  await rm(join(dir, SAVE_SOCKET), { force: true });
  await listenUnix(server, dir, SAVE_SOCKET);
  await giveToQemu(dir, join(dir, SAVE_SOCKET));
}

/** To the user that QEMU is. */
async function giveToQemu(dir: string, path: string): Promise<void> {
  if (!isRoot()) return;
  const { uid, gid } = await stat(join(dir, RUN_DIR));
  await lchown(path, uid, gid);
}
