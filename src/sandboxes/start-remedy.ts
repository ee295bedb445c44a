/** What to do when a guest has nothing to start a command with. */

/** What only a shell gives a meaning to. */
const SHELL_LINE = /[\s|&;<>()$`*?]/;

export function startRemedy(argv: readonly string[]): string {
  const [only = ""] = argv;
  return argv.length === 1 && SHELL_LINE.test(only)
    ? `this is taken as the name of one program; a line of shell is sh -c '${only.replaceAll("'", "'\\''").slice(0, 200)}'`
    : "name a program, a user and a working directory that the sandbox has";
}
