/**
 * Commands that make a machine ready for the first one of its user: what a machine does for the first time is slow. Nobody asked for
 * them, so no list shows them. They have ended before anybody else's command begins, and are known by the whole of what they say: a
 * command that only calls itself so is shown.
 */
import type { ProcessInfo } from "./agent.ts";

const SHELLS = ["sh", "/bin/sh"] as const;

export function exerciseArgv(shell: (typeof SHELLS)[number]): string[] {
  return [shell, "-c", "echo exercised", "stacyvm-exercise"];
}

// As the guest lists them, their words with blanks between them.
const COMMANDS: ReadonlySet<string> = new Set(SHELLS.map((shell) => exerciseArgv(shell).join(" ")));

export function isExercise({ command, running }: Pick<ProcessInfo, "command" | "running">): boolean {
  return !running && COMMANDS.has(command);
}
