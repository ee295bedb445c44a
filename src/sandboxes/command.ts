/** From a request to run something to the argument vector that the agent gets. */
import { StacyError } from "../host/error.ts";

export interface CommandRequest {
  command: string;
  args: string[];
  /** `shell`: `sh -c`, arguments quoted and appended. `argv`: run directly. */
  mode: string;
}

/** @throws StacyError `invalid` */
export function commandArgv(request: CommandRequest): string[] {
  const { command, args, mode } = request;
  if ([command, ...args].some((part) => part.includes("\0"))) {
    throw new StacyError("invalid", "a command cannot contain NUL bytes");
  }
  switch (mode) {
    case "":
    case "shell":
      if (command === "" && args.length === 0) throw new StacyError("invalid", "command is required");
      return ["sh", "-c", [command, ...args.map(quote)].join(" ")];
    case "argv":
      if (command === "") throw new StacyError("invalid", "command is required in argv mode");
      return [command, ...args];
    default:
      throw new StacyError("invalid", `there is no exec mode ${JSON.stringify(mode)}`, {
        remedy: 'use "shell" or "argv"',
      });
  }
}

/** Single-quoted for a POSIX shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
