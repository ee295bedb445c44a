/**
 * Commands that make a machine ready for the first one of its user: what a machine does for the first time is slow. Nobody asked for
 * them, so no list shows them; they are known by their `$0`.
 */
const NAME = "stacyvm-exercise";

export function exerciseArgv(shell: string): string[] {
  return [shell, "-c", "echo exercised", NAME];
}

/** @param command as the guest lists it, its words with blanks between them */
export function isExercise(command: string): boolean {
  return command.endsWith(` ${NAME}`);
}
