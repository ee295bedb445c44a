/** `-p PORT` of `spawn` and `run`: each port of a sandbox has an address by itself; the option says which. */
import { Option } from "commander";
import type { Sandbox } from "../../sdk/src/index.ts";
import { collectPorts } from "./arguments.ts";
import type { Connection } from "./connection.ts";
import { note } from "./output.ts";

export function portsOption(): Option {
  return new Option("-p, --port <port>", "print the preview URL of this port; may be repeated").argParser(collectPorts);
}

/** On standard error: what the command prints stays what it was. */
export function notePorts(sandbox: Sandbox, ports: readonly number[] | undefined, kind: Connection["kind"]): void {
  for (const port of ports ?? []) {
    note(
      kind === "here"
        ? `port ${port}: \`stacyvm forward ${sandbox.id} ${port}\` reaches it; it has a URL while \`stacyvm serve\` runs`
        : `port ${port}: ${sandbox.port(port).previewUrl}`,
    );
  }
}
