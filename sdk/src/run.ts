/** One command in a sandbox of its own, by one request. */
import { bytesOf, toBase64 } from "./base64.ts";
import type * as wire from "./generated.ts";
import type { Command } from "./process.ts";
import {
  type CreateOptions,
  checked,
  type ExecOptions,
  type ExecResult,
  execResult,
  runFields,
  stdinFields,
} from "./sandbox.ts";
import { LONG, type Transport } from "./transport.ts";

export interface RunOptions extends CreateOptions, Omit<ExecOptions, "env" | "signal"> {
  /** Files that are there before the command starts, by path. */
  files?: Record<string, string | Uint8Array> | undefined;
  /** Paths of files to give back, 16 MiB together. */
  collect?: string[] | undefined;
}

export interface RunResult extends ExecResult {
  /** What `collect` names, by path. */
  files: Record<string, Uint8Array>;
  /** What `collect` names and was not there. */
  missing: string[];
  /** Of the sandbox, which is gone. */
  sandboxId: string;
  /** Which way its machine started, and in how many ms. */
  boot?: wire.RunResult["boot"];
}

export async function run(transport: Transport, command: Command, options: RunOptions): Promise<RunResult> {
  const { signal, timeoutMs, stdin, check, files = {}, workdir, user, timeout, stopSignal, env, ...spawn } = options;
  const result = await transport.call("POST /run", {
    body: {
      ...spawn,
      ...runFields(command, { env, workdir, user, timeout, stopSignal }),
      ...stdinFields(stdin),
      files: Object.entries(files).map(([path, content]) =>
        typeof content === "string" ? { path, content } : { path, content: toBase64(content), encoding: "base64" },
      ),
    },
    timeoutMs: timeoutMs ?? LONG.timeoutMs,
    signal,
  });
  const done: RunResult = {
    ...execResult(result),
    files: Object.fromEntries(Object.entries(result.files).map(([path, content]) => [path, bytesOf(content)])),
    missing: result.missing,
    sandboxId: result.sandboxId,
    ...(result.boot === undefined ? {} : { boot: result.boot }),
  };
  return checked(command, done, check);
}
