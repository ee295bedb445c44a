/**
 * Writes `docs/cli.md` from the commands' own definitions and `docs/api.md` from the OpenAPI document that the server serves.
 * `--check` only says whether they are up to date.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { clientCommand } from "../src/cli/client-command.ts";
import { createProgram, EXIT_CODES } from "../src/cli/program.ts";
import { visibleCommands, visibleOptions } from "../src/cli/visible.ts";
import { packageRoot } from "../src/host/paths.ts";
import { type JsonSchema, type OpenApi, type Operation, openApiDocument } from "./openapi.ts";

const MADE = "<!-- Made by scripts/generate-docs.ts; not edited by hand. -->";
const BASE = "/api/v1";

export const DOCUMENTS: Record<string, () => Promise<string>> = {
  "docs/cli.md": async () => cliReference(createProgram()),
  "docs/api.md": async () => apiReference(await openApiDocument()),
};

/** Text in a cell of a table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]): string => `| ${cells.map(cell).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function cliReference(program: Command): string {
  const intro = "Look up a command, its arguments and its options. `stacyvm COMMAND --help` prints the same.";
  const common = visibleOptions(clientCommand("", "")).map(optionRow);
  const parts = [MADE, "# Commands", intro, EXIT_CODES.trim(), COMMON, table(["", ""], common)];
  const add = (command: Command, path: string): void => {
    const full = `${path} ${command.name()}`.trim();
    if (command.parent !== null) parts.push(`## \`${full}\``, describe(command, full, common));
    for (const each of visibleCommands(command)) add(each, full);
  };
  add(program, "");
  return `${parts.join("\n\n")}\n`;
}

const COMMON = "## Common options\n\nEvery command that talks to a server takes these:";

function optionRow(option: Option): string[] {
  const value = option.defaultValueDescription ?? option.defaultValue;
  return [`\`${option.flags}\``, withDefault(option.description, value, option.argChoices)];
}

/** @param common rows that stand once for all commands that have all of them */
function describe(command: Command, full: string, common: string[][]): string {
  const text = command.description();
  const parts = [`${text.charAt(0).toUpperCase()}${text.slice(1)}.`];
  const aliases = command.aliases();
  if (aliases.length > 0) parts.push(`Also: ${aliases.map((alias) => `\`${alias}\``).join(", ")}.`);
  if (command.commands.length > 0) return parts.join("\n\n");
  const usage = command.registeredArguments.map((argument) => {
    const word = `${argument.name()}${argument.variadic ? "..." : ""}`;
    return argument.required ? `<${word}>` : `[${word}]`;
  });
  parts.push(`    ${[full, "[options]", ...usage].join(" ")}`);
  const rows = [
    ...command.registeredArguments.map((argument) => [
      `\`${argument.name()}\``,
      withDefault(argument.description, argument.defaultValue, argument.argChoices),
    ]),
    ...visibleOptions(command).map(optionRow),
  ];
  const shared = new Set(common.map(String));
  const own = rows.filter((row) => !shared.has(String(row)));
  const all = rows.length - own.length === common.length;
  const shown = all ? own : rows;
  if (shown.length > 0) parts.push(table(["", ""], shown));
  if (all) parts.push("And the [common options](#common-options).");
  return parts.join("\n\n");
}

function withDefault(description: string, value: unknown, choices: string[] | undefined): string {
  const facts = [
    ...(choices === undefined ? [] : [`one of ${choices.join(", ")}`]),
    ...(value === undefined || value === false || (Array.isArray(value) && value.length === 0)
      ? []
      : [`default ${String(value)}`]),
  ];
  return `${description}${facts.length === 0 ? "" : ` (${facts.join("; ")})`}`;
}

const METHODS = ["get", "post", "put", "patch", "delete"];

function apiReference(document: OpenApi): string {
  const parts = [
    MADE,
    "# HTTP interface",
    `Use the server from any language: each route, what it takes, what it answers. Everything is below \`${BASE}\`; the same as a document for programs is at \`${BASE}/openapi.json\`, for people with a form to try it at \`/docs\`.`,
    "Errors are JSON: `{code, message, phase?, remedy?, request_id?}`. Durations are Go's: `300ms`, `90s`, `1h30m`; sizes are MiB. A field of a body that is not known here is refused with the one that was meant. With keys configured, `X-API-Key` (or `Authorization: Bearer`) goes with every request; a browser's WebSocket, which takes no headers, names the protocols `stacyvm` and `stacyvm.key.` with the key in base64url.",
  ];
  const byTag = new Map<string, string[]>();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of METHODS) {
      const operation = methods[method];
      if (operation === undefined || !path.startsWith(BASE)) continue;
      const [tag = "other"] = operation.tags ?? [];
      const text = describeOperation(`${method.toUpperCase()} ${path.slice(BASE.length)}`, operation);
      byTag.set(tag, [...(byTag.get(tag) ?? []), text]);
    }
  }
  for (const [tag, operations] of byTag) {
    parts.push(`## ${tag.charAt(0).toUpperCase()}${tag.slice(1)}`, ...operations);
  }
  parts.push("## Objects", "A `?` behind a name: it may be missing.");
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    const fields = objectFields(schema, document);
    if (fields.length > 0) parts.push(`### ${name}`, table(["field", "type", ""], fields));
    // One whose fields are for its sender to choose.
    else if (schema.description !== undefined) parts.push(`### ${name}`, schema.description);
  }
  return `${parts.join("\n\n")}\n`;
}

function describeOperation(title: string, operation: Operation): string {
  const parts = [`### \`${title}\``, operation.summary ?? ""];
  if (operation.description !== undefined) parts.push(operation.description);
  const parameters = (operation.parameters ?? []).filter((parameter) => parameter.in !== "path");
  if (parameters.length > 0) {
    parts.push(
      table(
        ["query", "type", ""],
        parameters.map(({ name, required, description, schema }) => [
          `\`${name}\`${required === true ? "" : "?"}`,
          typeName(schema),
          description ?? schema.description ?? "",
        ]),
      ),
    );
  }
  const body = operation.requestBody?.content;
  if (body !== undefined) parts.push(`Body: ${contentName(body)}.`);
  const answers = Object.entries(operation.responses).map(([status, { description, content }]) =>
    Number(status) < 400
      ? `${status} ${content === undefined ? description : `${contentName(content)}: ${description}`}`
      : status,
  );
  parts.push(`Answers: ${answers.join(", ")}.`);
  return parts.filter((part) => part !== "").join("\n\n");
}

function contentName(content: Record<string, { schema: JsonSchema }>): string {
  return Object.entries(content)
    .map(([type, { schema }]) => (type === "application/json" ? typeName(schema) : `\`${type}\``))
    .join(" or ");
}

function objectFields(schema: JsonSchema, document: OpenApi): string[][] {
  const inherited = (schema.allOf ?? []).flatMap((part) =>
    objectFields(part.$ref === undefined ? part : (document.components.schemas[nameOf(part.$ref)] ?? {}), document),
  );
  const required = new Set(schema.required ?? []);
  const own = Object.entries(schema.properties ?? {}).map(([name, field]) => [
    `\`${name}\`${required.has(name) ? "" : "?"}`,
    typeName(field),
    field.description ?? "",
  ]);
  return [...inherited, ...own];
}

function nameOf(ref: string): string {
  return ref.split("/").at(-1) ?? ref;
}

function typeName(schema: JsonSchema): string {
  if (schema.$ref !== undefined) return `[${nameOf(schema.$ref)}](#${nameOf(schema.$ref).toLowerCase()})`;
  const union = schema.anyOf ?? schema.oneOf;
  if (union !== undefined) return [...new Set(union.map(typeName).filter((name) => name !== "null"))].join(" or ");
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${String(value)}\``).join(", ");
  const types = [schema.type ?? "any"].flat().filter((type) => type !== "null");
  if (types[0] === "array") return `list of ${typeName(schema.items ?? {})}`;
  if (types[0] === "object" && schema.properties !== undefined) {
    return `{${Object.keys(schema.properties).join(", ")}}`;
  }
  return types.join(" or ");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, make] of Object.entries(DOCUMENTS)) {
    const text = await make();
    if (!process.argv.includes("--check")) await writeFile(join(packageRoot, path), text);
    else if ((await readFile(join(packageRoot, path), "utf8").catch(() => "")) !== text) {
      process.stdout.write(`${path} is out of date: run \`node scripts/generate-docs.ts\`\n`);
      process.exitCode = 1;
    }
  }
}
