/** A table on stdout, columns padded to their widest cell. */
export function printTable(head: string[], rows: string[][]): void {
  for (const line of tableLines(head, rows)) process.stdout.write(`${line}\n`);
}

export function tableLines(head: string[], rows: string[][]): string[] {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
