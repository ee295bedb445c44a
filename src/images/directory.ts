/** A directory of the host as a layer, by way of the host's tar: Node cannot read extended attributes. */
import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { nameBytes } from "../host/byte-name.ts";
import { errno, StacyError } from "../host/error.ts";
import { isRoot } from "../host/is-root.ts";
import type { Layer } from "./base.ts";

/**
 * Everything below `dir`. For root with its owners; for another user everything belongs to root in the image, since the
 * user's own number means nothing there.
 */
export function directoryLayer(dir: string, asRoot = isRoot(), options: string[] = []): Layer {
  return { whiteouts: false, open: (signal) => archiveOf(dir, { asRoot, options, signal }) };
}

export interface ArchiveOptions {
  /** With the owners of its files; otherwise everything is root's. */
  asRoot: boolean;
  /** More of tar's. */
  options?: string[];
  /** A file that changes meanwhile is no error: it comes with the size that it had. */
  changing?: boolean;
  signal?: AbortSignal | undefined;
}

/** Everything below `dir` as a tar, with names of any bytes, hard links and extended attributes. @throws StacyError `permission`, `invalid` */
export async function* archiveOf(
  dir: string,
  { asRoot, options = [], changing = false, signal }: ArchiveOptions,
): AsyncGenerator<Buffer> {
  const owner = asRoot ? [] : ["--owner=root:0", "--group=root:0"];
  // By descriptor: an argument of a child process is UTF-8, and the directory's own name may be any bytes.
  await using root = await open(nameBytes(dir), constants.O_RDONLY | constants.O_DIRECTORY).catch((cause: Error) => {
    throw unreadable(dir, cause.message, errno(cause) === "EACCES", cause);
  });
  const child = spawn(
    "tar",
    [
      ...["--create", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*"],
      ...["--warning=no-file-ignored", ...owner, ...options, "--directory=/proc/self/fd/3", "--file=-", "."],
    ],
    { stdio: ["ignore", "pipe", "pipe", root.fd], ...(signal === undefined ? {} : { signal }), killSignal: "SIGKILL" },
  );
  const [, stdout, stderr] = child.stdio as [null, Readable, Readable, ...unknown[]];
  let words = "";
  stderr.setEncoding("utf8").on("data", (text: string) => {
    words = (words + text).slice(-2000);
  });
  let failed: Error | undefined;
  child.once("error", (error) => {
    failed = error;
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  let complete = false;
  try {
    for await (const chunk of stdout) yield chunk as Buffer;
    const code = await closed;
    signal?.throwIfAborted();
    if (failed !== undefined) {
      throw new StacyError("unavailable", errno(failed) === "ENOENT" ? "tar is not installed" : failed.message, {
        cause: failed,
      });
    }
    // 1: a file differs from what it was at first.
    if (code !== 0 && !(changing && code === 1)) {
      throw unreadable(dir, words.trim(), /Permission denied/.test(words));
    }
    complete = true;
  } finally {
    if (!complete) {
      child.kill("SIGKILL");
      await closed;
    }
  }
}

function unreadable(dir: string, words: string, denied: boolean, cause?: Error): StacyError {
  return new StacyError(denied ? "permission" : "invalid", `cannot read all of ${dir}: ${words}`, {
    ...(denied ? { remedy: "import it as root, or as the owner of all its files" } : {}),
    ...(cause === undefined ? {} : { cause }),
  });
}
