import type { Command } from "commander";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { printJson, printLine } from "../output.ts";

/** `stacyvm move ID`: a sandbox goes on at another node of the fleet. */
export function moveCommand(): Command {
  return clientCommand("move", "have a sandbox go on at another node of the fleet")
    .argument("<id>", "the sandbox")
    .option("--to <node>", "name or id of the node (default: where it fits best)")
    .addHelpText(
      "after",
      wrappedNote(
        "Its id, names, files, programs and limits stay; connections to it end, and calls that come meanwhile wait. Its checkpoints stay where they are.",
      ),
    )
    .action((id: string, options: ClientOptions & { to?: string }) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await client.get(id, { signal });
        const moved = await sandbox.move({ ...(options.to === undefined ? {} : { to: options.to }), signal });
        if (options.json === true) return printJson(moved);
        const { node, formerNode, state, stoppedMs, bytes } = moved;
        if (node === formerNode) return printLine(`${moved.id} is on ${node}`);
        printLine(
          `${moved.id} ${state} on ${node}: stood still for ${Math.round(stoppedMs)} ms, ${Math.round(bytes / 2 ** 20)} MiB sent`,
        );
      }),
    );
}
