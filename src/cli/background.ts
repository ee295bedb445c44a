/**
 * A server that a command starts when there is none and a sandbox stays: the next commands need not start one inside themselves, and
 * time limits, networks and preview URLs go on between them. It ends by itself when no sandbox is left and nobody has used it for a
 * while. `STACYVM_BACKGROUND` says how long that is, or `off`.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { StacyError } from "../host/error.ts";
import { type DataPaths, packageRoot } from "../host/paths.ts";
import { parseDuration } from "../sandboxes/duration.ts";
import { version } from "./version.ts";

export const BACKGROUND_NOTE =
  "started a server in the background, so that the next commands are fast; it ends when no sandbox is left (STACYVM_BACKGROUND=off: none)";

const IDLE_MS = 60_000;
/** Say where the server is, or who asks: it serves all the same. */
const NOT_ITS_OWN = /^STACYVM_(URL|API_KEY|API_KEY_FILE|DATA_DIR|BACKGROUND)$/;

/** How long nobody uses it before it ends, ms; `undefined`: there is to be none. @throws StacyError `invalid` */
export function backgroundIdleMs(text = process.env.STACYVM_BACKGROUND): number | undefined {
  if (text === undefined || text === "") return IDLE_MS;
  if (text === "off") return undefined;
  try {
    return parseDuration(text);
  } catch (cause) {
    throw new StacyError("invalid", `STACYVM_BACKGROUND is ${JSON.stringify(text)}`, {
      cause,
      remedy: "set it to off, or to a time such as 10m",
    });
  }
}

/** It pays as soon as a sandbox stays, since more commands for it will follow. */
export async function wantsBackground({ sandboxes }: DataPaths, stays?: "background" | "here"): Promise<boolean> {
  if (stays === "here" || backgroundIdleMs() === undefined) return false;
  return stays === "background" || (await readdir(sandboxes).catch(() => [])).length > 0;
}

/** What a server reads when it starts: one that has read something else is not taken for this command's. */
export async function settingsMark(): Promise<string> {
  const files = [resolve(process.env.STACYVM_CONFIG || "stacyvm.yaml"), join(homedir(), ".stacyvm", "config.yaml")];
  const states = files.map(async (path) => {
    const found = await stat(path).catch(() => undefined);
    return found === undefined ? "" : `${path} ${found.mtimeMs} ${found.size}`;
  });
  const variables = Object.entries(process.env)
    .filter(([name]) => name.startsWith("STACYVM_") && !NOT_ITS_OWN.test(name))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const all = JSON.stringify([version, packageRoot, variables, await Promise.all(states)]);
  return createHash("sha256").update(all).digest("hex").slice(0, 16);
}

export interface Starting {
  /** It has ended, or could not be started: what the command does itself then says why. */
  readonly ended: boolean;
}

/** In a session of its own, which no Ctrl-C of this terminal reaches. What it has to say is in `server.log`. */
export function startBackground({ root }: DataPaths): Starting {
  const state = { ended: false };
  let log: number;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    log = openSync(join(root, "server.log"), "w", 0o600);
  } catch {
    return { ended: true };
  }
  try {
    const main = process.argv[1] ?? "";
    const child = spawn(process.execPath, ["--", main, "background-server"], {
      detached: true,
      stdio: ["ignore", log, log],
    });
    const end = (): void => {
      state.ended = true;
    };
    child.once("exit", end).once("error", end);
    child.unref();
  } finally {
    closeSync(log);
  }
  return state;
}
