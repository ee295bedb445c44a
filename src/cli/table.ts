import { printable } from "../host/printable.ts";

/** What becomes of a column where a table is wider than its terminal. */
export interface Fit<Heading extends string = string> {
  /** The least needed first: they are left out in this order. */
  drop?: readonly Heading[];
  /** Texts of any length: shortened before anything is left out. */
  shorten?: readonly Heading[];
}

const GAP = "  ";
/** Of a shortened text, while other columns can still go; and at last. */
const READABLE = 20;
const LEAST = 8;

/** A table on stdout, columns padded to their widest cell. In a terminal no line is wider than that; elsewhere nothing is left out. */
export function printTable<const Heading extends string>(
  head: readonly Heading[],
  rows: string[][],
  fit: Fit<Heading>,
): void {
  const width = process.stdout.isTTY ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY;
  for (const line of tableLines(head, rows, fit, width)) process.stdout.write(`${line}\n`);
}

/** One line for each row: what a cell says can neither begin another row nor order the terminal anything. @param width columns */
export function tableLines<const Heading extends string>(
  head: readonly Heading[],
  rows: string[][],
  fit: Fit<Heading> = {},
  width = Number.POSITIVE_INFINITY,
): string[] {
  const shown = [[...head], ...rows].map((row: string[]) => row.map(printable));
  const columns = head.map((name, i) => ({
    i,
    width: shown.reduce((most, row) => Math.max(most, lengthOf(row[i] ?? "")), 0),
    text: fit.shorten?.includes(name) === true,
  }));
  const excess = (): number =>
    columns.reduce((sum, column) => sum + column.width, 0) + GAP.length * (columns.length - 1) - width;
  const shorten = (least: number): void => {
    while (excess() > 0) {
      const [widest, next] = columns.filter(({ text }) => text).toSorted((a, b) => b.width - a.width);
      if (widest === undefined || widest.width <= least) return;
      // Down to the next one first, so that long texts share what there is.
      const wanted = Math.max(least, next?.width ?? 0, widest.width - excess());
      widest.width = Math.min(wanted, widest.width - 1);
    }
  };
  shorten(READABLE);
  for (const name of fit.drop ?? []) {
    if (excess() <= 0) break;
    const at = columns.findIndex(({ i }) => head[i] === name);
    if (at !== -1) columns.splice(at, 1);
  }
  shorten(LEAST);
  return shown.map((row) =>
    columns
      .map((column) => padded(cut(row[column.i] ?? "", column.width), column.width))
      .join(GAP)
      .trimEnd(),
  );
}

function lengthOf(text: string): number {
  return [...text].length;
}

function padded(text: string, width: number): string {
  return `${text}${" ".repeat(Math.max(0, width - lengthOf(text)))}`;
}

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join("")}…`;
}
