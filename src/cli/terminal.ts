/** This process's terminal or pipes, joined to a command in a sandbox. */
import { StacyError } from "../host/error.ts";
import { EXIT } from "./error-output.ts";
import type { Interrupts } from "./interrupt.ts";
import { note, printJson, writeTo } from "./output.ts";

/** A command that runs, whoever runs it. */
export interface Conversation {
  output: AsyncIterable<{ stream: "stdout" | "stderr"; data: Uint8Array }>;
  /** Settles after the output has ended. */
  exited: Promise<{ exitCode: number; reason: string }>;
  write(data: Uint8Array): Promise<void>;
  closeStdin(): Promise<void> | void;
  kill(signal: "SIGINT" | "SIGTERM" | "SIGHUP"): Promise<void> | void;
  resize(rows: number, cols: number): Promise<void> | void;
}

export interface TerminalSize {
  rows: number;
  cols: number;
  term?: string;
}

/** Of this terminal. @throws StacyError `invalid` when there is none */
export function terminalSize(): TerminalSize {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new StacyError("invalid", "standard input and output are not a terminal", {
      remedy: "without a terminal use `stacyvm exec -i`, which passes standard input on, or leave out -t",
    });
  }
  const { rows, columns } = process.stdout;
  const term = process.env.TERM;
  return { rows: rows || 24, cols: columns || 80, ...(term === undefined ? {} : { term }) };
}

export interface ConverseOptions {
  /** The command has a terminal: keys go to it as they are typed, Ctrl-C too. */
  tty: boolean;
  /** Pass standard input on. */
  stdin: boolean;
  interrupts: Interrupts;
}

/** Until the command has ended. @returns its exit code; 124 when its time was over */
export function converse(command: Conversation, options: ConverseOptions): Promise<number> {
  return join(command, options, (stream, data) => writeTo(stream === "stderr" ? process.stderr : process.stdout, data));
}

/** The same, with the output as one JSON document at the end. */
export async function collectJson(command: Conversation, options: ConverseOptions): Promise<number> {
  const parts: Record<"stdout" | "stderr", Uint8Array[]> = { stdout: [], stderr: [] };
  const exitCode = await join(command, options, async (stream, data) => void parts[stream].push(data));
  const text = (stream: "stdout" | "stderr"): string => Buffer.concat(parts[stream]).toString("utf8");
  printJson({ exit_code: exitCode, stdout: text("stdout"), stderr: text("stderr") });
  return exitCode;
}

async function join(
  command: Conversation,
  options: ConverseOptions,
  write: (stream: "stdout" | "stderr", data: Uint8Array) => Promise<void>,
): Promise<number> {
  await using parts = new AsyncDisposableStack();
  const { signal } = options.interrupts;
  if (options.tty) {
    process.stdin.setRawMode(true);
    parts.defer(() => void process.stdin.setRawMode(false));
    const resize = (): void => void command.resize(process.stdout.rows, process.stdout.columns);
    process.stdout.on("resize", resize);
    parts.defer(() => void process.stdout.off("resize", resize));
  } else {
    parts.use(options.interrupts.divert((name) => void command.kill(name as "SIGINT")));
  }
  const left = Promise.withResolvers<{ exitCode: number; reason: string }>();
  left.promise.catch(() => {});
  const leave = (): void => left.reject(signal.reason);
  signal.addEventListener("abort", leave, { once: true });
  parts.defer(() => signal.removeEventListener("abort", leave));
  if (signal.aborted) leave();
  if (options.stdin) {
    const keys = options.tty ? new EscapeKeys() : undefined;
    const pump = (data: Buffer): void => {
      const typed = keys === undefined ? data : keys.filter(data);
      if (typed === undefined) {
        process.stderr.write("\r\nleft\n");
        left.resolve({ exitCode: EXIT.interrupted, reason: "left" });
        return;
      }
      process.stdin.pause();
      command.write(typed).then(
        () => process.stdin.resume(),
        () => {}, // it has ended
      );
    };
    const end = (): void => void Promise.resolve(command.closeStdin()).catch(() => {});
    process.stdin.on("data", pump).on("end", end);
    parts.defer(() => {
      process.stdin.off("data", pump).off("end", end);
      process.stdin.pause();
    });
  }
  const finished = (async () => {
    for await (const { stream, data } of command.output) {
      await write(stream, data);
    }
    return command.exited;
  })();
  finished.catch(() => {});
  const { exitCode, reason } = await Promise.race([finished, left.promise]);
  if (reason === "out-of-memory") note("out of memory: the sandbox's memory ran out, and the command ended by that");
  if (reason !== "timeout") return exitCode;
  note("the command's time limit was reached");
  return EXIT.timeout;
}

const ENTER = new Set([10, 13]);
const ESC = 27;
const TILDE = 126;
const DOT = 46;

/** `~.` at the beginning of a line leaves, as with ssh; `~~` is one `~`. */
export class EscapeKeys {
  #lineStart = true;
  #tilde = false;
  /** Inside an escape sequence: a key without a character, or the terminal's answer to a question. Neither begins a line. */
  #sequence: "none" | "begun" | "inside" = "none";

  /** What to pass on, or `undefined` to leave. */
  filter(data: Buffer): Buffer | undefined {
    const out: number[] = [];
    for (const byte of data) {
      if (this.#tilde) {
        this.#tilde = false;
        if (byte === DOT) return undefined;
        out.push(TILDE);
        if (byte === TILDE) continue;
      } else if (byte === TILDE && this.#lineStart && this.#sequence === "none") {
        this.#tilde = true;
        this.#lineStart = false;
        continue;
      }
      out.push(byte);
      this.#follow(byte);
    }
    return Buffer.from(out);
  }

  #follow(byte: number): void {
    if (byte === ESC) this.#sequence = "begun";
    else if (this.#sequence === "begun")
      this.#sequence = byte === 0x5b || byte === 0x4f ? "inside" : "none"; // [ or O
    else if (this.#sequence === "inside") {
      if (byte >= 0x40) this.#sequence = "none";
    } else this.#lineStart = ENTER.has(byte);
  }
}
