import { Command, Option } from "commander";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { findCheckpoint } from "../find-checkpoint.ts";
import { bytes, printJson, printLine, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm checkpoint ID [NAME]`, `checkpoint ls`, `checkpoint restore`, `checkpoint rm`. */
export function checkpointCommand(): Command {
  const command = new Command("checkpoint").description("save sandboxes as they are, for `spawn --checkpoint`");
  return command
    .addCommand(create(), { isDefault: true })
    .addCommand(list())
    .addCommand(restore())
    .addCommand(remove());
}

function create(): Command {
  return clientCommand("create", "save a sandbox and print the checkpoint's id; `checkpoint ID` is the same")
    .argument("<id>", "the sandbox, which goes on")
    .argument("[name]", "a name to know it by")
    .addOption(
      new Option(
        "--volumes <what>",
        "of a sandbox with volumes: save a snapshot of each, or refuse; default: snapshot",
      ).choices(["snapshot", "refuse"]),
    )
    .action((id: string, name: string | undefined, options: ClientOptions & { volumes?: "snapshot" | "refuse" }) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const checkpoint = await sandbox.checkpoint(name, { volumes: options.volumes, signal });
        if (options.json === true) printJson(checkpoint);
        else printLine(checkpoint.id);
      }),
    );
}

function list(): Command {
  return clientCommand("ls", "list checkpoints").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.checkpoints.list({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["ID", "NAME", "SANDBOX", "IMAGE", "MEMORY", "ON DISK", "AGE"],
        all.map((checkpoint) => [
          checkpoint.id,
          checkpoint.name ?? "",
          checkpoint.sandboxId,
          checkpoint.image,
          `${checkpoint.memoryMb} MiB`,
          checkpoint.damaged === undefined ? bytes(checkpoint.bytes) : `${bytes(checkpoint.bytes)}, damaged`,
          sinceNow(checkpoint.createdAt),
        ]),
        { drop: ["MEMORY", "SANDBOX", "IMAGE"], shorten: ["IMAGE", "NAME"] },
      );
    }),
  );
}

function restore(): Command {
  return clientCommand("restore", "take a sandbox back to what it was; what it has become since is lost")
    .argument("<id>", "the sandbox")
    .argument("<checkpoint>", "its id or name")
    .action((id: string, name: string, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const { id: checkpoint } = await findCheckpoint(client, name, signal);
        const info = await sandbox.restore(checkpoint, { signal });
        if (options.json === true) printJson(info);
        else printLine(sandbox.id);
      }),
    );
}

function remove(): Command {
  return clientCommand("rm", "remove checkpoints")
    .argument("<id...>", "checkpoints, by id or name")
    .action((names: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        // All are found before one of them is removed.
        const ids = await Promise.all(names.map(async (name) => (await findCheckpoint(client, name, signal)).id));
        for (const id of ids) {
          await client.checkpoints.remove(id, { signal });
          if (options.json !== true) printLine(id);
        }
        if (options.json === true) printJson(ids.map((id) => ({ id, status: "deleted" })));
      }),
    );
}
