/** A command that the SDK has started, for `converse`. */
import type { SandboxProcess } from "../../sdk/src/index.ts";
import type { Conversation } from "./terminal.ts";

export function conversationOf(process: SandboxProcess): Conversation {
  return {
    output: process,
    exited: process.exited,
    write: (data) => process.write(data),
    closeStdin: () => process.closeStdin(),
    kill: (signal) => process.kill(signal),
    resize: (rows, cols) => process.resize(rows, cols),
  };
}

const TERM_MS = 2_000;

/** Ends it if it still runs. The server may be in this process and go with it, so its end is waited for here. */
export async function endProcess(process: SandboxProcess, tty: boolean): Promise<void> {
  process.kill(tty ? "SIGHUP" : "SIGTERM");
  const timer = setTimeout(() => process.kill("SIGKILL"), TERM_MS);
  try {
    for await (const _ of process); // what it still says delays the news of its end
    await process.exited;
  } catch {
    // the connection broke: the server has ended it, or will
  } finally {
    clearTimeout(timer);
  }
}
