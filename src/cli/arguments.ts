/** Argument types that commands share: each parses, validates and says what is right. */
import { InvalidArgumentError } from "commander";

/** `512`, `512m`, `1g`, `1.5GiB` to MiB. */
export function parseSizeMiB(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(m|mb|mib|g|gb|gib)?$/i.exec(text.trim());
  if (match?.[1] === undefined) throw new InvalidArgumentError("write a size as 512m or 1g.");
  const mib = Number(match[1]) * (/^g/i.test(match[2] ?? "m") ? 1024 : 1);
  if (!Number.isInteger(mib)) throw new InvalidArgumentError("sizes are whole MiB.");
  return mib;
}
