/** A Dockerfile's text as instructions: directives, comments, continued lines, here-documents. */
import { StacyError } from "../../host/error.ts";

/** Words as a shell has them, quotes kept; what is no word is left out. By the file's escape character. */
const WORD = {
  "\\": /(?:\\[\s\S]|"(?:\\[\s\S]|[^"\\])*"|'[^']*'|[^\s"'\\])+/g,
  "`": /(?:`[\s\S]|"(?:`[\s\S]|[^"`])*"|'[^']*'|[^\s"'`])+/g,
};
type Escape = keyof typeof WORD;

export interface Heredoc {
  /** The word that ends it. */
  name: string;
  content: string;
  /** Variables in it are replaced, unless its word is quoted. */
  expand: boolean;
}

export interface Instruction {
  /** In capitals. */
  name: string;
  rest: string;
  /** From 1. */
  line: number;
  /** In the order of their `<<`. */
  heredocs: Heredoc[];
  /** Of its file. */
  escapeChar: Escape;
}

export interface Lines {
  instructions: Instruction[];
  /** A backslash, unless the file chooses another. */
  escapeChar: Escape;
}

const HEREDOC = /^\d*<<(-?)(?:"([^"<]+)"|'([^'<]+)'|([^<"']+))$/;
const WITH_HEREDOCS = new Set(["RUN", "COPY", "ADD"]);

/** @throws StacyError `invalid` */
export function readLines(text: string): Lines {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  const escapeChar = escapeOf(lines);
  const continued = escapeChar === "`" ? /(^|[^`])`[ \t]*$/ : /(^|[^\\])\\[ \t]*$/;
  const instructions: Instruction[] = [];
  for (let i = 0; i < lines.length; ) {
    const begin = i;
    let whole = "";
    let open = true;
    for (; open && i < lines.length; i++) {
      const line = lines[i] ?? "";
      // Comments and empty lines go, also between continued lines.
      if (/^\s*#/.test(line) || line.trim() === "") {
        if (whole === "") break;
        continue;
      }
      open = continued.test(line);
      whole += open ? line.replace(continued, "$1") : line;
    }
    if (whole === "") {
      i = begin + 1;
      continue;
    }
    const trimmed = whole.trim();
    const name = /^[A-Za-z]+(?=\s|$)/.exec(trimmed)?.[0] ?? "";
    const rest = name === "" ? "" : trimmed.slice(name.length).trim();
    const instruction: Instruction = { name: name.toUpperCase(), rest, line: begin + 1, heredocs: [], escapeChar };
    if (WITH_HEREDOCS.has(instruction.name)) i = readHeredocs(instruction, lines, i);
    instructions.push(instruction);
  }
  return { instructions, escapeChar };
}

/** `# escape=` among the comments `# name=value` at the very begin. */
function escapeOf(lines: readonly string[]): Escape {
  for (const line of lines) {
    const [, name, value] = /^#\s*([A-Za-z]+)\s*=\s*(.+)$/.exec(line.trim()) ?? [];
    if (name === undefined) break;
    if (name.toLowerCase() !== "escape") continue;
    if (value === "\\" || value === "`") return value;
    throw new StacyError("invalid", `the escape character ${value} is not known`, { remedy: "choose \\ or `" });
  }
  return "\\";
}

/** @returns the line after the last here-document */
function readHeredocs(instruction: Instruction, lines: readonly string[], next: number): number {
  let i = next;
  for (const word of instruction.rest.trimStart().startsWith("[") ? [] : rawWords(instruction)) {
    const [, dash, double, single, plain] = HEREDOC.exec(word) ?? [];
    const name = double ?? single ?? plain;
    if (name === undefined) continue;
    const content: string[] = [];
    for (; ; i++) {
      const line = lines[i];
      if (line === undefined) {
        throw new StacyError("invalid", `line ${instruction.line}: the here-document has no end`, {
          remedy: `end it with a line ${name}`,
        });
      }
      const text = dash === "-" ? line.replace(/^\t+/, "") : line;
      if (text === name) break;
      content.push(`${text}\n`);
    }
    i++;
    instruction.heredocs.push({ name, content: content.join(""), expand: plain !== undefined });
  }
  return i;
}

/** Whether a command is a here-document and nothing else: its text is what is run. */
export function isHeredoc(word: string): boolean {
  return HEREDOC.test(word);
}

export function rawWords({ rest, escapeChar }: Instruction): string[] {
  return rest.match(WORD[escapeChar]) ?? [];
}

/** The same of its text or a part of that, where a quote that is not closed is an error. */
export function words(instruction: Instruction, fail: (why: string) => StacyError): string[] {
  if (instruction.rest.replace(WORD[instruction.escapeChar], "").trim() !== "") throw fail("a quote is not closed");
  return rawWords(instruction);
}
