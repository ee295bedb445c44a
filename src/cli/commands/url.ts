import type { Command } from "commander";
import { StacyError } from "../../host/error.ts";
import { collectPorts } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, printLine } from "../output.ts";

/** `stacyvm url ID PORT`: where a browser finds what listens on a port in a sandbox. */
export function urlCommand(): Command {
  return clientCommand("url", "print the preview URLs of ports in a sandbox")
    .argument("<id>", "the sandbox")
    .argument("<port...>", "for example 8080", (text: string, earlier?: number[]) => collectPorts(text, earlier))
    .action((id: string, ports: number[], options: ClientOptions) =>
      withServer(options, async ({ client, kind, signal }) => {
        if (kind === "here") {
          throw new StacyError("unavailable", "no server runs that could answer at a URL", {
            remedy: "start one with `stacyvm serve`, or reach the port with `stacyvm forward ID PORT`",
          });
        }
        const sandbox = await findSandbox(client, id, signal);
        const urls = ports.map((port) => ({ port, url: sandbox.port(port).previewUrl }));
        if (options.json === true) return printJson(urls);
        for (const { url } of urls) printLine(url);
      }),
    );
}
