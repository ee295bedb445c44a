/**
 * A network namespace with nothing in it, one for all monitors that this process starts. The kernel takes milliseconds to make one and to end
 * it, and others wait meanwhile. Nothing of it lies on disk: it is an open file of this process, and it is gone with this process and the
 * last monitor in it. A server makes it at its start; a command that starts one machine lets its cell make one. Its loopback is down, and nobody
 * in it has the rights to bring that up. Where we are not root it belongs to a user namespace of its own.
 */
import { spawn } from "node:child_process";
import { once as event } from "node:events";
import { type FileHandle, open } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import { isRoot } from "../host/is-root.ts";
import { once } from "../host/once.ts";

const MAKE_LIMIT_MS = 60_000;

/** Kept here: what nobody refers to is closed. */
let held: FileHandle | undefined;

const make = once(async () => {
  held = await makeAndOpen();
  return pathOf(held);
});

/** Makes it, if nobody has. @returns a path by which whatever this process starts can enter it @throws StacyError `unavailable` */
export function emptyNetwork(): Promise<string> {
  return make();
}

/** The same, if it is there. */
export function emptyNetworkIfMade(): string | undefined {
  return held === undefined ? undefined : pathOf(held);
}

function pathOf({ fd }: FileHandle): string {
  return `/proc/${process.pid}/fd/${fd}`;
}

/** By a program that is in it until we have opened it. */
async function makeAndOpen(): Promise<FileHandle> {
  // Whoever is to make a user namespace below this one must be somebody in it.
  const spaces = isRoot() ? ["--net"] : ["--user", "--map-current-user", "--net"];
  const holder = spawn("unshare", [...spaces, "--", "cat"], { stdio: ["pipe", "pipe", "pipe"], cwd: "/" });
  const said: Buffer[] = [];
  holder.stderr.on("data", (part: Buffer) => said.push(part));
  holder.stdin.on("error", () => {}); // it has ended, which is told below
  const ended = event(holder, "close");
  ended.catch(() => {}); // it could not be started: told below
  try {
    // What comes back is from `cat`, which is in it.
    holder.stdin.write("\n");
    const signal = AbortSignal.timeout(MAKE_LIMIT_MS);
    const there = await Promise.race([
      event(holder.stdout, "data", { signal }).then(() => true),
      ended.then(() => false),
    ]);
    if (!there) throw new Error(Buffer.concat(said).toString("utf8").trim() || "unshare ended");
    return await open(`/proc/${holder.pid}/ns/net`, "r");
  } catch (cause) {
    throw new StacyError("unavailable", `an empty network namespace cannot be made: ${(cause as Error).message}`, {
      cause,
      remedy: "allow network namespaces (`stacyvm doctor` says more)",
    });
  } finally {
    holder.kill("SIGKILL");
    await ended.catch(() => {});
  }
}
