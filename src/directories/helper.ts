/** The process that serves one directory to one guest (`directory/`, in Rust). It is confined to it, and ends with this one. */
import { type ChildProcess, spawn } from "node:child_process";
import { realpath, stat } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { StacyError } from "../host/error.ts";
import { childEnvironment } from "../host/process.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { MountedDirectory } from "./directory.ts";
import { layerPlace } from "./layer.ts";
import { type WatchBudget, watchBudget } from "./watch-budget.ts";

const START_LIMIT_MS = 30_000;
const ANSWER_LIMIT_MS = 10_000;
const ASK_MS = 100;
/** What it may say of a start that fails. */
const MOST_WORDS = 4_096;
export interface HelperOptions {
  program: string;
  /** Of this server: no guest may see it, wherever it lies. */
  hidden: string;
  /** Where the machine's own files are, its layers among them. */
  machineDir?: () => string;
  /** Of all helpers; absent: this process's. */
  watches?: WatchBudget;
}

export interface Helper extends AsyncDisposable {
  readonly pid: number;
  /** FUSE requests, and the answers to them. */
  readonly requests: Writable;
  readonly answers: Readable;
  /** Settles when it has ended. */
  readonly ended: Promise<void>;
  /** Paths in the directory of the files that its guest has open to write. @throws StacyError `timeout`, `unavailable` */
  openToWrite(): Promise<Buffer[]>;
}

/** @throws StacyError `unavailable`, `timeout`: it did not start, and why */
export async function startHelper(
  { program, hidden, machineDir, watches = watchBudget }: HelperOptions,
  { source, readOnly, uid, gid, layer }: MountedDirectory,
): Promise<Helper> {
  const access = readOnly ? "ro" : "rw";
  const unseen = await realpath(hidden).catch(() => hidden);
  const own: string[] = [];
  if (layer !== undefined && machineDir !== undefined) {
    const place = await layerPlace(machineDir(), layer.name, source).catch((error: unknown) => {
      throw new StacyError("unavailable", `the directory ${source} cannot be served: its layer could not be made`, {
        cause: error,
        remedy: "see whether the directory is there, and the disk of the server's data has room",
      });
    });
    own.push(place, String(layer.bytes));
  }
  const grant = await watches.take(await userOf(source));
  const numbers = [uid, gid, process.pid].map(String);
  const child = spawn(program, [source, access, ...numbers, unseen, String(grant.watches), ...own], {
    cwd: "/",
    env: childEnvironment({}),
    stdio: ["pipe", "pipe", "pipe"],
  }) as ChildProcess & { stdin: Writable; stdout: Readable; stderr: Readable };
  const ended = new Promise<void>((settle) => {
    child.once("exit", () => settle());
    child.once("error", () => settle());
  });
  void ended.then(() => grant[Symbol.dispose]());
  const end = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
  };
  try {
    await withTimeLimit(
      ready(child, source),
      START_LIMIT_MS,
      () => new StacyError("timeout", `the helper for ${source} did not start within ${START_LIMIT_MS / 1000} s`),
    );
  } catch (error) {
    await end();
    throw error;
  }
  child.stdin.on("error", () => {}); // its end says more
  child.stdout.on("error", () => {});
  child.stderr.resume();
  const { pid = 0, stdin: requests, stdout: answers } = child;
  const openToWrite = (): Promise<Buffer[]> => askForOpen(child, source, ended);
  return { pid, requests, answers, ended, openToWrite, [Symbol.asyncDispose]: end };
}

/** It is told on stderr, after a signal; one that comes when it is about to wait is noticed with the next. */
async function askForOpen(
  child: ChildProcess & { stderr: Readable },
  source: string,
  ended: Promise<void>,
): Promise<Buffer[]> {
  const { promise, resolve } = Promise.withResolvers<Buffer[]>();
  let said: Buffer = Buffer.alloc(0);
  const take = (bytes: Buffer | string): void => {
    said = Buffer.concat([said, Buffer.from(bytes as string, "latin1")]);
    const end = said.length > 0 && said[0] === 0 ? 0 : said.indexOf("\0\0");
    if (end < 0) return;
    const all = said.subarray(0, end);
    const paths: Buffer[] = [];
    for (let at = 0; at < all.length; ) {
      const next = all.indexOf(0, at);
      paths.push(Buffer.from(all.subarray(at, next < 0 ? all.length : next)));
      at = next < 0 ? all.length : next + 1;
    }
    resolve(paths);
  };
  child.stderr.setEncoding("latin1").on("data", take);
  const asking = setInterval(() => child.kill("SIGUSR1"), ASK_MS);
  child.kill("SIGUSR1");
  const gone = ended.then((): never => {
    throw new StacyError("unavailable", `the helper for ${source} has ended`);
  });
  gone.catch(() => {});
  try {
    return await withTimeLimit(
      Promise.race([promise, gone]),
      ANSWER_LIMIT_MS,
      () => new StacyError("timeout", `the helper for ${source} does not say which files are open`),
    );
  } finally {
    clearInterval(asking);
    child.stderr.off("data", take);
    child.stderr.resume();
  }
}

/** Whom its helper runs as: started by root, it is the directory's owner. */
async function userOf(source: string): Promise<number> {
  const own = process.getuid?.() ?? 0;
  return own === 0
    ? stat(source)
        .then(({ uid }) => uid)
        .catch(() => own)
    : own;
}

/** Until it has said that it is. */
function ready(child: ChildProcess & { stderr: Readable }, source: string): Promise<void> {
  return new Promise((settle, fail) => {
    let said = "";
    const no = (why: string, cause?: Error): void =>
      fail(
        new StacyError("unavailable", `the directory ${source} cannot be served: ${why}`, {
          ...(cause === undefined ? {} : { cause }),
          remedy: "see whether it is there, and run `stacyvm setup directory`",
        }),
      );
    child.once("error", (error) => no(error.message, error));
    child.once("close", () => no(said.trim() || "its helper ended at once"));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (said.length < MOST_WORDS) said += text;
      if (said.startsWith("ready\n")) settle();
    });
  });
}
