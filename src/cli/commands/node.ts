import { setTimeout as delay } from "node:timers/promises";
import { Command } from "commander";
import type { Client, FleetNode } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { sizeText } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { note, printJson, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

const LOOK_MS = 500;

/** `stacyvm node ...`: the servers of a fleet. */
export function nodeCommand(): Command {
  const command = new Command("node").description("servers of a fleet");
  for (const part of [list(), inspect(), drain(), undrain(), remove()]) command.addCommand(part);
  return command;
}

function list(): Command {
  return clientCommand("ls", "list the servers of the fleet").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.nodes.list({ signal });
      if (options.json === true) return printJson(all);
      if (all.length === 0) note("this server is alone: `fleet.database_url` makes it one of several");
      printTable(
        ["NAME", "STATE", "SANDBOXES", "LOAD", "FREE", "VERSION", "SEEN", "URL"],
        all.map((node) => [
          node.self ? `${node.name} (this)` : node.name,
          stateOf(node),
          node.load.maxSandboxes === 0
            ? String(node.load.sandboxes)
            : `${node.load.sandboxes} of ${node.load.maxSandboxes}`,
          node.load.loadAverage.toFixed(1),
          sizeText(node.load.freeMemoryMb),
          node.version,
          sinceNow(node.seenAt),
          node.url,
        ]),
        { drop: ["URL", "VERSION", "LOAD"], shorten: ["NAME", "URL"] },
      );
    }),
  );
}

function stateOf({ state, draining, role }: FleetNode): string {
  return [state, ...(draining ? ["draining"] : []), ...(role === "node" ? [] : [role])].join(", ");
}

function inspect(): Command {
  return clientCommand("inspect", "all that is known of a node, as JSON")
    .argument("<node>", "its name or id")
    .action((name: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => printJson(await client.nodes.get(name, { signal }))),
    );
}

function drain(): Command {
  return clientCommand("drain", "give a node no new sandboxes; those that it has go on")
    .argument("<node>", "its name or id")
    .option("--move", "have its sandboxes go on at other nodes, a few at a time")
    .option("--wait", "until it has none; with --move, until it has tried all, and those that stay are listed")
    .action((name: string, options: ClientOptions & { move?: boolean; wait?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const { move = false, wait = false, json = false } = options;
        const node = await client.nodes.drain(name, { move, signal });
        if (wait) return await drained(client, node.name, { move, json, signal });
        if (json) return printJson(node);
        const goes = move ? ", and gives away what it can: `--wait` says how far it is" : "";
        note(`${node.name} takes no new sandboxes; it has ${node.load.sandboxes}${goes}`);
      }),
    );
}

/** Says how far it is whenever that has changed. @throws StacyError `conflict` when something stays */
async function drained(
  client: Client,
  node: string,
  { move, json, signal }: { move: boolean; json: boolean; signal: AbortSignal },
): Promise<void> {
  let said = "";
  for (;;) {
    const drain = await client.nodes.drained(node, { signal });
    const { moving, moved, left } = drain;
    const words = `${moved} of ${moved + left.length} sandboxes have left ${node}`;
    if (words !== said && !json) note(words);
    said = words;
    if (left.length > 0 && (moving || !move)) {
      await delay(LOOK_MS, undefined, { signal });
      continue;
    }
    if (json) return printJson(drain);
    if (left.length === 0) return;
    printTable(
      ["STAYS", "WHY"],
      left.map(({ id, reason }) => [id, reason]),
      { shorten: ["WHY"] },
    );
    throw new StacyError(
      "conflict",
      `${left.length === 1 ? "a sandbox stays" : `${left.length} sandboxes stay`} on ${node}`,
      {
        remedy: "remove what you do not need, or wait for the end of their time; then ask again",
      },
    );
  }
}

function undrain(): Command {
  return clientCommand("undrain", "give a node new sandboxes again")
    .argument("<node>", "its name or id")
    .action((name: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const node = await client.nodes.undrain(name, { signal });
        if (options.json === true) return printJson(node);
        note(`${node.name} takes new sandboxes`);
      }),
    );
}

function remove(): Command {
  return clientCommand("rm", "take a node out of the fleet: its rights end")
    .argument("<node>", "its name or id")
    .option("-f, --force", "also one that is up or has sandboxes: the fleet forgets them, and they go on there")
    .addHelpText("after", wrappedNote("For a machine that is gone for good, or that has been drained and stopped."))
    .action((name: string, options: ClientOptions & { force?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const removed = await client.nodes.remove(name, { force: options.force === true, signal });
        if (options.json === true) return printJson(removed);
        const count = removed.forgotten.length;
        note(`${name} is removed${count === 0 ? "" : `; forgotten: ${removed.forgotten.join(", ")}`}`);
      }),
    );
}
