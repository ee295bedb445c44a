/** Words below a command's options, wrapped to the terminal as commander wraps the options themselves. */
import type { AddHelpTextContext } from "commander";

const NARROWEST = 24;

/** For `addHelpText`. Paragraphs are separated by an empty line; their own line breaks do not count. */
export function wrappedNote(text: string): (context: AddHelpTextContext) => string {
  return ({ error, command }) => {
    const { getOutHelpWidth, getErrHelpWidth } = command.configureOutput();
    const width = (error ? getErrHelpWidth : getOutHelpWidth)?.() ?? 80;
    return `\n${wrapped(text, Math.max(width, NARROWEST))}`;
  };
}

export function wrapped(text: string, width: number): string {
  const paragraphs = text.trim().split(/\n\s*\n/);
  return paragraphs.map((paragraph) => filled(paragraph.split(/\s+/), width)).join("\n\n");
}

function filled(words: string[], width: number): string {
  const done: string[] = [];
  let line = "";
  for (const word of words) {
    if (line !== "" && line.length + 1 + word.length > width) {
      done.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...done, line].join("\n");
}
