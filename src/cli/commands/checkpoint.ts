import { Command } from "commander";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { bytes, printJson, printLine, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm checkpoint ID [NAME]`, `checkpoint ls`, `checkpoint rm`. */
export function checkpointCommand(): Command {
  const command = new Command("checkpoint").description("save sandboxes as they are, for `spawn --checkpoint`");
  return command.addCommand(create(), { isDefault: true }).addCommand(list()).addCommand(remove());
}

function create(): Command {
  return clientCommand("create", "save a sandbox and print the checkpoint's id; `checkpoint ID` is the same")
    .argument("<id>", "the sandbox, which goes on")
    .argument("[name]", "a name to know it by")
    .action((id: string, name: string | undefined, options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const sandbox = await findSandbox(client, id, signal);
        const checkpoint = await sandbox.checkpoint(name, { signal });
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
          bytes(checkpoint.bytes),
          sinceNow(checkpoint.createdAt),
        ]),
        { drop: ["MEMORY", "SANDBOX", "IMAGE"], shorten: ["IMAGE", "NAME"] },
      );
    }),
  );
}

function remove(): Command {
  return clientCommand("rm", "remove checkpoints")
    .argument("<id...>", "checkpoints")
    .action((ids: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        for (const id of ids) {
          await client.checkpoints.remove(id, { signal });
          if (options.json !== true) printLine(id);
        }
        if (options.json === true) printJson(ids.map((id) => ({ id, status: "deleted" })));
      }),
    );
}
