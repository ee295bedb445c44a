/** `-v NAME:/PATH[:ro]`: volumes of a sandbox, and, where NAME is a path, directories of the server's host. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { InvalidArgumentError, Option } from "commander";
import type { DirectoryRequest, VolumeMountRequest } from "../../sdk/src/index.ts";
import { parseCount } from "./arguments.ts";

export interface Mounts {
  volumes?: VolumeMountRequest[];
  mounts?: DirectoryRequest[];
}

export function volumeOption(): Option {
  return new Option(
    "-v, --volume <name:path>",
    "a volume (see `stacyvm volume`), or a directory of this host (a path such as ./src), at this path: data:/data, .:/work, or with :ro to read only; may be repeated",
  ).argParser(parseVolume);
}

/** Of a template, which has none of this host's directories. */
export function templateVolumeOption(): Option {
  return new Option(
    "-v, --volume <name:path>",
    "a volume (see `stacyvm volume`) at this path, such as data:/data, or data:/data:ro to read only; may be repeated",
  ).argParser((text: string, earlier?: Mounts): Mounts => {
    const all = parseVolume(text, earlier);
    if (all.mounts === undefined) return all;
    throw new InvalidArgumentError(
      "a template can have no directories of the host, volumes it can: give them with -v.",
    );
  });
}

export function parseVolume(text: string, earlier: Mounts = {}): Mounts {
  const [name = "", path = "", how, more] = text.split(":");
  if (name === "" || !path.startsWith("/") || more !== undefined || !["ro", "rw", undefined].includes(how)) {
    throw new InvalidArgumentError("write it as NAME:/PATH or ./DIRECTORY:/PATH, with :ro at the end to read only.");
  }
  const readOnly = how === "ro";
  if (!/^(?:[/~]|\.\.?(?:\/|$))/.test(name)) {
    if (name.includes("/"))
      throw new InvalidArgumentError(`a directory of this host begins with ./ or /: write ./${name}:${path}.`);
    return { ...earlier, volumes: [...(earlier.volumes ?? []), { name, path, readOnly }] };
  }
  const source = /^~(?:\/|$)/.test(name) ? join(homedir(), name.slice(1)) : resolve(name);
  return { ...earlier, mounts: [...(earlier.mounts ?? []), { source, target: path, readOnly }] };
}

/** Of a spawn and of a template. */
export interface VolumeSlotOptions {
  volumeSlots?: number;
  volumeSlotsRo?: number;
}

export function volumeSlotOptions(): [Option, Option] {
  return [
    new Option(
      "--volume-slots <n>",
      "free places for volumes that `stacyvm volume attach` gives it while it runs",
    ).argParser(parseCount),
    new Option("--volume-slots-ro <n>", "the same, for volumes that it only reads").argParser(parseCount),
  ];
}

/** `SANDBOX:/PATH[:ro]`: where a volume is to be. @throws InvalidArgumentError */
export function parsePlace(text: string): { sandbox: string; path: string; readOnly: boolean } {
  const [sandbox = "", path = "", how, more] = text.split(":");
  if (sandbox === "" || !path.startsWith("/") || more !== undefined || !["ro", "rw", undefined].includes(how)) {
    throw new InvalidArgumentError("write it as SANDBOX:/PATH, or SANDBOX:/PATH:ro.");
  }
  return { sandbox, path, readOnly: how === "ro" };
}
