/** How large a sandbox is: the same options, with the same defaults, for every command that starts one. */
import { Option } from "commander";
import { DEFAULT_SIZE } from "../sandboxes/limits.ts";
import { parseCount, parseSizeMiB, sizeText } from "./arguments.ts";

// No default of commander's: what is not given is the template's or the server's to say.
export function memoryOption(): Option {
  const text = `memory, for example 512m or 2g (default: ${sizeText(DEFAULT_SIZE.memoryMiB)})`;
  return new Option("-m, --memory <size>", text).argParser(parseSizeMiB);
}

export function vcpusOption(): Option {
  return new Option("-c, --vcpus <n>", `virtual CPUs (default: ${DEFAULT_SIZE.vcpus})`).argParser(parseCount);
}

export function diskOption(): Option {
  const text = `writable space (default: ${sizeText(DEFAULT_SIZE.diskMiB)})`;
  return new Option("--disk <size>", text).argParser(parseSizeMiB);
}
