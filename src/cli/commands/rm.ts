import { type Command, Option } from "commander";
import { StacyError } from "../../host/error.ts";
import { type ClientOptions, clientCommand, forEachSandbox, withServer } from "../client-command.ts";
import { note, printJson, printLine } from "../output.ts";

/** `stacyvm rm ID...`: ends sandboxes and removes everything of them. */
export function rmCommand(): Command {
  return clientCommand("rm", "end sandboxes and remove everything of them")
    .alias("destroy")
    .argument("[id...]", "sandboxes")
    .option("-a, --all", "all of them")
    .addOption(new Option("-f, --force", "it always is").hideHelp())
    .action((ids: string[], options: ClientOptions & { all?: boolean }) =>
      withServer(options, async (session) => {
        if (options.all === true && ids.length > 0) {
          throw new StacyError("invalid", "both --all and ids", { remedy: "leave out one of them" });
        }
        if (options.all !== true && ids.length === 0) {
          throw new StacyError("invalid", "no sandbox is named", { remedy: "name some, or use --all" });
        }
        const { client, signal } = session;
        const wanted = options.all === true ? (await client.list({ signal })).map(({ id }) => id) : ids;
        const gone: string[] = [];
        await forEachSandbox(session, wanted, async (sandbox) => {
          await sandbox.destroy({ signal });
          gone.push(sandbox.id);
          if (options.json !== true) printLine(sandbox.id);
        });
        if (options.json === true) printJson(gone.map((id) => ({ id, status: "destroyed" })));
        else if (wanted.length === 0) note("there is none");
      }),
    );
}
