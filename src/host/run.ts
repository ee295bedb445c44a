/** Runs a short-lived host tool to its end. Not for VMMs: those outlive us (process.ts). */
import { execFile } from "node:child_process";
import { errno, StacyError } from "./error.ts";

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  /** ms; default 10 minutes */
  timeoutMs?: number;
  /** Debian package that has the tool, for the remedy. */
  package?: string;
  /** Fed to the tool's standard input. */
  input?: Uint8Array;
  /** Sees the standard output as it comes, for long work that tells how far it is. */
  onOutput?: (chunk: Buffer) => void;
}

/** Its standard output as bytes. @throws StacyError `unavailable` when missing or failing, with its last words; `no-space` */
export function runTool(command: string, args: string[], options: RunOptions = {}): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      {
        encoding: "buffer",
        maxBuffer: 1 << 30,
        timeout: options.timeoutMs ?? 600_000,
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        ...(options.env === undefined ? {} : { env: options.env }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        if (options.signal?.aborted) return reject(options.signal.reason);
        if (errno(error) === "ENOENT") {
          const where = options.package === undefined ? "" : ` (package ${options.package})`;
          return reject(
            new StacyError("unavailable", `${command} is not installed${where}`, {
              cause: error,
              remedy: `install the package ${options.package ?? command}`,
            }),
          );
        }
        // Where a program that panics has been says nothing to whoever called it.
        const [said = ""] = stderr.toString("utf8").split(/^stack backtrace:/im);
        // The tool's own words stay in the cause: whoever called it is not helped by each sector that could not be written.
        if (/No space left on device|Disk quota exceeded/.test(said)) {
          const detail = { cause: error, remedy: "free disk space; nothing needs a restart" };
          return reject(
            new StacyError("no-space", `there is no space left on the disk that ${command} writes to`, detail),
          );
        }
        const words = said.trim().split("\n").slice(-5).join("\n");
        reject(
          new StacyError("unavailable", `${command} failed: ${words === "" ? error.message : words}`, { cause: error }),
        );
      },
    );
    if (options.onOutput !== undefined) child.stdout?.on("data", options.onOutput);
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input);
  });
}
