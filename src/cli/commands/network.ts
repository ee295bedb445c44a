import type { Command } from "commander";
import { allowOption } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { note, printJson, printLine } from "../output.ts";

interface NetworkOptions extends ClientOptions {
  allow?: string[];
  none?: boolean;
}

/** `stacyvm network ID`: which hosts a sandbox may connect to, shown or set. */
export function networkCommand(): Command {
  return clientCommand("network", "show or set the hosts that a sandbox may connect to")
    .argument("<id>", "the sandbox")
    .addOption(allowOption().conflicts("none"))
    .option("--none", "no host any more")
    .addHelpText(
      "after",
      wrappedNote(
        "With --allow the list is replaced; connections to what is no longer in it are cut. New commands find the proxy in their environment (http_proxy and others).",
      ),
    )
    .action((id: string, options: NetworkOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const hosts = options.none === true ? [] : options.allow;
        if (hosts !== undefined) await sandbox.allow(hosts, { signal });
        const network = await sandbox.network({ signal });
        if (options.json === true) return printJson(network);
        for (const host of network.allowedHosts) printLine(host);
        const { connected, refused, failed, sent, received, problem } = network;
        if (problem !== undefined) note(problem);
        if (network.allowedHosts.length === 0) note("it has no network: `--allow HOST` gives it some");
        else
          note(
            `${connected} connections, ${refused} refused, ${failed} failed; ${sent} bytes sent, ${received} received`,
          );
      }),
    );
}
