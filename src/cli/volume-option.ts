/** `-v NAME:/PATH[:ro]`: volumes of a sandbox. */
import { InvalidArgumentError, Option } from "commander";
import type { VolumeMountRequest } from "../../sdk/src/index.ts";

export function volumeOption(): Option {
  return new Option(
    "-v, --volume <name:path>",
    "a volume (see `stacyvm volume`) at this path, such as data:/data, or data:/data:ro to read only; may be repeated",
  ).argParser(parseVolume);
}

function parseVolume(text: string, earlier: VolumeMountRequest[] = []): VolumeMountRequest[] {
  const [name = "", path = "", how, more] = text.split(":");
  if (/^[./~]/.test(name)) {
    throw new InvalidArgumentError(
      "no directory of the host can be mounted, volumes can: `stacyvm cp DIR ID:/PATH` copies one in, and back.",
    );
  }
  if (name === "" || !path.startsWith("/") || more !== undefined || !["ro", "rw", undefined].includes(how)) {
    throw new InvalidArgumentError("write it as NAME:/PATH, or NAME:/PATH:ro.");
  }
  return [...earlier, { name, path, readOnly: how === "ro" }];
}
