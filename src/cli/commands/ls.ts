import { type Command, Option } from "commander";
import { type SandboxInfo, wireOf } from "../../../sdk/src/index.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { type FieldTemplate, formatOption } from "../field-template.ts";
import { printJson, printLine, printText, sinceNow, untilThen } from "../output.ts";
import { type OwnerColumn, ownerColumn } from "../owner-column.ts";
import { Filters } from "../sandbox-filter.ts";
import { stateWords } from "../state-words.ts";
import { type Fit, printTable } from "../table.ts";

interface LsOptions extends ClientOptions {
  quiet?: boolean;
  filter?: Filters;
  format?: FieldTemplate;
}

const HEAD = ["IMAGE", "STATE", "VCPUS", "MEMORY", "STARTED", "AGE", "ENDS IN", "LABELS"] as const;
type Heading = "ID" | "NAME" | "OWNER" | (typeof HEAD)[number];
export const FIT: Fit<Heading> = {
  drop: ["LABELS", "STARTED", "VCPUS", "MEMORY", "AGE"],
  shorten: ["IMAGE", "NAME", "OWNER", "STATE", "LABELS"],
};

export function table(infos: SandboxInfo[]): { head: Heading[]; rows: string[][] } {
  const owners = ownerColumn(infos);
  return { head: ["ID", "NAME", ...owners.head, ...HEAD], rows: infos.map((info) => row(info, owners)) };
}

function row(info: SandboxInfo, owners: OwnerColumn): string[] {
  return [
    info.id,
    info.name ?? "",
    ...owners.cell(info),
    info.image,
    stateWords(info),
    String(info.vcpus),
    `${info.memoryMb} MiB`,
    info.boot === undefined ? "" : `${info.boot.path}, ${Math.round(info.boot.totalMs)} ms`,
    sinceNow(info.createdAt),
    untilThen(info.expiresAt),
    Object.entries(info.metadata ?? {})
      .map(([key, value]) => (value === "" ? key : `${key}=${value}`))
      .join(","),
  ];
}

/** `stacyvm ls`: the sandboxes, newest first. */
export function lsCommand(): Command {
  return clientCommand("ls", "list sandboxes, newest first")
    .option("-q, --quiet", "only their ids")
    .option(
      "-f, --filter <K=V>",
      "only those with this name, state, image, id, template or label; may be repeated",
      (text, earlier: Filters | undefined) => (earlier ?? new Filters()).add(text),
    )
    .addOption(formatOption())
    .addOption(new Option("-a, --all", "it always does").hideHelp())
    .action((options: LsOptions) =>
      withServer(options, async ({ client, signal }) => {
        const all = (await client.list({ signal }))
          .map(({ info }) => info)
          .filter((info) => options.filter?.take(info) !== false);
        if (options.json === true) return printJson(all);
        if (options.format !== undefined) {
          for (const info of all) printText(options.format(wireOf(info) as object));
          return;
        }
        if (options.quiet === true) {
          for (const { id } of all) printLine(id);
          return;
        }
        const { head, rows } = table(all);
        printTable(head, rows, FIT);
      }),
    );
}
