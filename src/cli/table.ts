import { printable } from "../host/printable.ts";

/** A table on stdout, columns padded to their widest cell. */
export function printTable(head: string[], rows: string[][]): void {
  for (const line of tableLines(head, rows)) process.stdout.write(`${line}\n`);
}

/** One line for each row: what a cell says can neither begin another row nor order the terminal anything. */
export function tableLines(head: string[], rows: string[][]): string[] {
  const shown = [head, ...rows].map((row) => row.map(printable));
  const widths = head.map((_, i) => shown.reduce((most, row) => Math.max(most, row[i]?.length ?? 0), 0));
  return shown.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
