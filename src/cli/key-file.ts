/**
 * How programs of the server's own user find it with a key, without being told: `server.key` in the data directory, open to its
 * owner only, for as long as the server runs. It names the process that wrote it, so that nobody else who listens on the same
 * port later is taken for it.
 */
import { randomBytes } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ownRecord } from "../host/process.ts";

const NAME = "server.key";

export interface KeyFile {
  url: string;
  key: string;
  pid: number;
  /** Of the process, in the kernel's ticks since the boot of the host. */
  start_time: string;
}

/** @returns removes it */
export async function writeKeyFile(root: string, url: string, key: string): Promise<AsyncDisposable> {
  const path = join(root, NAME);
  const { pid, startTime } = await ownRecord();
  const content: KeyFile = { url, key, pid, start_time: startTime };
  // Made anew, so that its mode is ours whatever lies there.
  const temporary = `${path}.${randomBytes(4).toString("hex")}`;
  await writeFile(temporary, `${JSON.stringify(content)}\n`, { mode: 0o600, flag: "wx" });
  await rename(temporary, path);
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}
