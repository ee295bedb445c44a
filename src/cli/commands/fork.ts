import { type Command, Option } from "commander";
import { parseCount, parseDuration, parsePair, parseVariable } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { printJson, printLine } from "../output.ts";

interface ForkOptions extends ClientOptions {
  count: number;
  name?: string;
  ttl?: string;
  env?: Record<string, string>;
  label?: Record<string, string>;
  mounts?: "read-only" | "copy-on-write" | "none";
  volumes?: "clone" | "read-only" | "none";
}

/** `stacyvm fork ID`: copies with memory and running programs. */
export function forkCommand(): Command {
  return clientCommand("fork", "copy a sandbox with its memory and running programs, and print the ids")
    .argument("<id>", "the sandbox")
    .option("-n, --count <n>", "how many", parseCount, 1)
    .option("--name <name>", "call a single copy so; without it a copy has no name")
    .option("--ttl <time>", "how long they live", parseDuration)
    .option(
      "-e, --env <K=V>",
      "environment of their commands, or K alone for its value here; may be repeated",
      parseVariable,
    )
    .addOption(
      new Option(
        "--volumes <what>",
        "what a copy gets of volumes that the sandbox writes to; default: a clone of each",
      ).choices([...["clone", "read-only", "none"]]),
    )
    .addOption(
      new Option(
        "--mounts <what>",
        "what a copy gets of directories of the host; default: it reads them; copy-on-write: what it writes stays in it",
      ).choices([...["read-only", "copy-on-write", "none"]]),
    )
    .option("-l, --label <K=V>", "a label to find them by; may be repeated", parsePair)
    .action((id: string, options: ForkOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const { count, name, ttl, env, label, volumes: what, mounts: how } = options;
        const volumes = what === "read-only" ? "read_only" : what;
        const mounts = how === "read-only" ? "read_only" : how === "copy-on-write" ? "copy_on_write" : how;
        const copies = await sandbox.fork({ count, name, ttl, env, metadata: label, volumes, mounts, signal });
        if (options.json === true) return printJson(copies.map(({ info }) => info));
        for (const copy of copies) printLine(copy.id);
      }),
    );
}
