/** What clients keep with a file: extended attributes `user.e2b.<key>`, which programs in the sandbox see and may set, too. */
import type { Agent, FileStat } from "../../guest/agent.ts";
import { asStacyError, StacyError } from "../../host/error.ts";

/** Of the attributes' names. */
export const METADATA = "user.e2b.";
const HEADER = "x-metadata-";
/** Linux has 255 bytes for an attribute's name. */
const KEY_BYTES = 255 - METADATA.length;
/** Of one file: keys with what they begin with, and values. What every filesystem that keeps attributes has room for. */
const BYTES = 4096;
const PRINTABLE = /^[\x20-\x7e]*$/;

/** By key, as a request's headers say it. @throws StacyError `invalid` */
export function metadataIn(headers: Headers): Record<string, string> {
  const found = [...headers].flatMap(([name, value]) =>
    name.startsWith(HEADER) ? [[name.slice(HEADER.length), value] as const] : [],
  );
  for (const [key, value] of found) {
    if (key === "" || key.length > KEY_BYTES || !PRINTABLE.test(key))
      throw new StacyError("invalid", `metadata: a key has 1 to ${KEY_BYTES} printable characters of ASCII`);
    if (!PRINTABLE.test(value))
      throw new StacyError(
        "invalid",
        `metadata: the value of ${key} has other characters than printable ones of ASCII`,
      );
  }
  const bytes = found.reduce((sum, [key, value]) => sum + METADATA.length + key.length + value.length, 0);
  if (bytes > BYTES)
    throw new StacyError("invalid", `metadata: ${bytes} bytes of keys and values; a file has ${BYTES}`);
  return Object.fromEntries(found);
}

/** Of a file that was asked for with these attributes. */
export function metadataOf({ attributes = {} }: Pick<FileStat, "attributes">): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name.slice(METADATA.length), value]));
}

/** The file has this from now on, and nothing of what it had. @throws StacyError `invalid` where none is kept */
export async function keepMetadata(
  agent: Pick<Agent, "mark">,
  path: string,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const attributes = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [METADATA + key, value]));
  await agent.mark(path, METADATA, attributes).catch((cause) => {
    if (asStacyError(cause).code !== "not-supported") throw cause;
    throw new StacyError("invalid", `metadata: the file is written, and no metadata are kept at ${path}`, {
      cause,
      remedy:
        "put it on the sandbox's disk: in memory (/dev/shm, /run) and in directories of the host there is no room for them",
    });
  });
}
