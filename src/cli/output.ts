/** Results on stdout: JSON as the server spells it, tables, and numbers as people read them. */
import { wireOf } from "../../sdk/src/index.ts";
import { printable, printableJson, printableLines } from "../host/printable.ts";

export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(wire(value), null, 2))}\n`);
}

/** One value per line, for streams. */
export function printJsonLine(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(wire(value)))}\n`);
}

function wire(value: unknown): unknown {
  const original = wireOf(value);
  return original === value && Array.isArray(value) ? value.map(wire) : original;
}

/** One line, whatever is in it: names come from guests and registries. */
export function printLine(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** Lines and tabs are those of whoever asked for them. */
export function printText(text: string): void {
  process.stdout.write(`${printableLines(text)}\n`);
}

/** Hints and reports; never a result. */
export function note(text: string): void {
  process.stderr.write(`${printableLines(text)}\n`);
}

/** What is said there is lost when its disk is full or nobody reads it any more: a server, and a command's work, go on. */
export function unheardIsNoError(out: NodeJS.WriteStream): void {
  out.on("error", () => {});
}

/** Waits for a slow reader. */
export async function writeTo(out: NodeJS.WriteStream, data: string | Uint8Array): Promise<void> {
  if (out.write(data) || out.errored !== null) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      out.off("drain", done).off("error", done).off("close", done);
      resolve();
    };
    out.on("drain", done).on("error", done).on("close", done);
  });
}

export function bytes(value: number): string {
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(2)} GiB`;
  if (value >= 2 ** 20) return `${(value / 2 ** 20).toFixed(1)} MiB`;
  return value >= 2 ** 10 ? `${(value / 2 ** 10).toFixed(1)} KiB` : `${value} B`;
}

/** `42s`, `7m`, `3h`, `2d`; negative times have a minus. */
export function span(ms: number): string {
  const sign = ms < 0 ? "-" : "";
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (seconds < 100) return `${sign}${seconds}s`;
  if (seconds < 100 * 60) return `${sign}${Math.round(seconds / 60)}m`;
  if (seconds < 48 * 3600) return `${sign}${Math.round(seconds / 3600)}h`;
  return `${sign}${Math.round(seconds / 86_400)}d`;
}

export function sinceNow(iso: string): string {
  return span(Date.now() - Date.parse(iso));
}

export function untilThen(iso: string): string {
  return span(Date.parse(iso) - Date.now());
}
