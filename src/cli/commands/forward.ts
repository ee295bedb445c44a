import { once } from "node:events";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Sandbox } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { collectPorts, parsePort } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { printJsonLine, printLine } from "../output.ts";
import { forwardPort } from "../port-forward.ts";

const AWAKE_MS = 3_600_000;

interface Mapping {
  local: number;
  guest: number;
}

interface ForwardOptions extends ClientOptions {
  address: string;
  reverse: number[];
}

/** `8080` or `8080:80`, the local one first; 0 picks a free one. */
function parseMapping(text: string, earlier: Mapping[] = []): Mapping[] {
  const [local = "", guest = local, ...rest] = text.split(":");
  const mapping = { local: parsePort(local), guest: parsePort(guest) };
  if (rest.length > 0 || mapping.guest === 0) throw new InvalidArgumentError("write it as 8080 or 8080:80.");
  return [...earlier, mapping];
}

/** `stacyvm forward ID 8080:80`: connections to a local port go to a port in the sandbox, until Ctrl-C. */
export function forwardCommand(): Command {
  return clientCommand("forward", "connect local ports to ports in a sandbox, until Ctrl-C")
    .argument("<id>", "the sandbox")
    .argument("[port...]", "LOCAL:GUEST, or one number for both; local 0 picks a free one", parseMapping)
    .option("--address <address>", "where to listen", "127.0.0.1")
    .addOption(
      new Option(
        "-R, --reverse <port>",
        "the other way: this port of the server's host, in the sandbox; may be repeated",
      )
        .argParser(collectPorts)
        .default([], "none"),
    )
    .addHelpText(
      "after",
      wrappedNote(
        "With -R programs of the sandbox reach the port as host.stacyvm:PORT, if the operator permits it (network.host_ports). `spawn --allow host.stacyvm:PORT` does the same for good.",
      ),
    )
    .action((id: string, mappings: Mapping[], options: ForwardOptions) => {
      if (mappings.length === 0 && options.reverse.length === 0) {
        throw new StacyError("invalid", "name a port, or one of the server's host with -R");
      }
      return withServer(options, async ({ client, signal }) => {
        const { reverse } = options;
        const sandbox = await findSandbox(client, id, signal);
        await using listeners = new AsyncDisposableStack();
        if (reverse.length > 0) {
          listeners.defer(await openReverse(sandbox, reverse));
          for (const port of reverse) {
            if (options.json === true) printJsonLine({ guest_address: `host.stacyvm:${port}`, host_port: port });
            else printLine(`${sandbox.id} host.stacyvm:${port} -> port ${port} of the server's host`);
          }
        }
        for (const { local, guest } of mappings) {
          const { port, close } = await forwardPort(sandbox, { address: options.address, local, guest }, signal);
          listeners.defer(close);
          if (options.json === true) printJsonLine({ address: options.address, port, guest_port: guest });
          else printLine(`${options.address}:${port} -> ${sandbox.id}:${guest}`);
        }
        // With -R alone the server does all the work, and a process that waits for a signal only would end.
        const awake = setInterval(() => {}, AWAKE_MS);
        if (!signal.aborted) await once(signal, "abort"); // Ctrl-C is how it ends, and no error
        clearInterval(awake);
      });
    });
}

/** Allows them. @returns what takes back what was not allowed before */
async function openReverse(sandbox: Sandbox, ports: readonly number[]): Promise<() => Promise<void>> {
  const { allowedHosts } = await sandbox.network();
  const added = ports.map((port) => `host.stacyvm:${port}`).filter((rule) => !allowedHosts.includes(rule));
  if (added.length > 0) await sandbox.allow([...allowedHosts, ...added]);
  return async () => {
    const { allowedHosts: now } = await sandbox.network();
    if (added.length > 0) await sandbox.allow(now.filter((rule) => !added.includes(rule)));
  };
}
