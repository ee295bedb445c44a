/**
 * Where a machine's saved state goes. QEMU may start no program (arguments.ts, `-sandbox`), and before 8.2 it cannot write a migration to a
 * file itself: it connects to a socket of ours in the machine's directory then, and what comes is written here.
 */
import { lchown, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { asStacyError, StacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
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

export interface SaveTarget {
  /** For `migrate`. */
  uri: string;
  /** Why the file could not be written. QEMU only learns that nobody reads any more. */
  readonly failure?: StacyError | undefined;
  /** After QEMU has said that it is saved: waits for the last byte, and puts the file in its place. */
  finish(): Promise<void>;
  /** Of a save that failed, and after `finish`. */
  close(): Promise<void>;
}

/** @param dir the machine's @param path absolute, on the same filesystem */
export async function saveTarget(version: string, dir: string, path: string): Promise<SaveTarget> {
  const own = join(dir, SAVE_FILE);
  // Where only we write.
  const ours = join(dir, "save.bin");
  await mkdir(join(dir, RUN_DIR), { recursive: true, mode: 0o700 }); // of a machine that an earlier version started
  // Of a save that a server did not live to end.
  await Promise.all([rm(own, { force: true }), rm(ours, { force: true })]);
  if (hasFileUri(version)) {
    return {
      uri: `file:${SAVE_FILE}`,
      async finish() {
        // Whoever loads it runs under a user of its own, and would get a copy of all that it may not read.
        await takeBack(own, path, 0o644);
      },
      close: () => rm(own, { force: true }),
    };
  }
  const file = await open(ours, "wx", 0o600);
  const written = Promise.withResolvers<void>();
  written.promise.catch(() => {});
  let taken: Socket | undefined;
  let failure: StacyError | undefined;
  const server = createServer((socket) => {
    taken = socket;
    server.close(); // one
    socket.on("error", written.reject);
    void (async () => {
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        await file.writeFile(chunk).catch((error: unknown) => {
          failure = asStacyError(error);
          throw failure;
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
    async finish() {
      if (taken === undefined)
        throw new StacyError("internal", "QEMU says that it saved the machine, and sent nothing");
      await written.promise;
      await rename(ours, path);
    },
    close,
  };
}

async function listen(server: Server, dir: string): Promise<void> {
  await rm(join(dir, SAVE_SOCKET), { force: true });
  await listenUnix(server, dir, SAVE_SOCKET);
  if (isRoot()) {
    // The user that QEMU is.
    const { uid, gid } = await stat(join(dir, RUN_DIR));
    await lchown(join(dir, SAVE_SOCKET), uid, gid);
  }
}
