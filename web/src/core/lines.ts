/** What is written one a line. */
export function linesOf(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** `NAME=value`, one a line. @throws Error for a line that is none */
export function pairsOf(text: string): Record<string, string> {
  return Object.fromEntries(
    linesOf(text).map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new Error(`${line}: write it as NAME=value`);
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}
