import type { Command } from "commander";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { printJsonLine, printLine } from "../output.ts";

interface EventsOptions extends ClientOptions {
  type?: string;
  sandbox?: string;
  after?: string;
}

/** `stacyvm events`: what happens, one line each, until Ctrl-C. */
export function eventsCommand(): Command {
  return clientCommand("events", "what happens, as it happens")
    .option("--type <types>", "only these, comma-separated; sandbox.* works")
    .option("--sandbox <id>", "only of this sandbox")
    .option("--after <event>", "begin after this one; evt-0: with the oldest that is kept")
    .action((options: EventsOptions) =>
      withServer(options, async ({ client, signal }) => {
        const { after } = options;
        const filter = { sandboxId: options.sandbox, types: options.type?.split(","), after, signal };
        for await (const event of client.events(filter)) {
          if (options.json === true) {
            const { sandboxId, ...rest } = event;
            printJsonLine({ ...rest, ...(sandboxId === undefined ? {} : { sandbox_id: sandboxId }) });
            continue;
          }
          const { id, type, sandboxId = "", timestamp, data } = event;
          const facts = Object.entries(data ?? {}).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
          printLine(`${timestamp} ${id.padEnd(9)} ${type.padEnd(20)} ${sandboxId.padEnd(11)} ${facts.join(" ")}`);
        }
      }),
    );
}
