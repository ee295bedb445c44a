import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Secret, SecretRequest } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { collect } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { note, printJson, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm secret ...`: what programs of sandboxes use and never have. */
export function secretCommand(): Command {
  const command = new Command("secret").description("keys and tokens that sandboxes use at some hosts and never have");
  for (const part of [set(), list(), remove()]) command.addCommand(part);
  return command;
}

interface SetOptions extends ClientOptions {
  host?: string[];
  header?: { name: string; template: string };
  basic?: string;
  query?: string;
  bearer?: boolean;
  valueFile?: string;
  fromEnv?: string;
  keepValue?: boolean;
  serverFile?: string;
  serverVariable?: string;
  placeholder?: string;
  everywhere?: boolean;
}

function set(): Command {
  return clientCommand("set", "make a secret, or change it; the value comes from standard input")
    .argument("<name>", "its name, and that of the variable in sandboxes")
    .option("--host <host>", "where the value may go, such as api.example.com; may be repeated", collect)
    .option("--bearer", "as Authorization: Bearer (default)")
    .addOption(new Option("--header <text>", "as a header, such as 'X-Api-Key: {}'").argParser(parseHeader))
    .option("--basic <user>", "as the password of this user")
    .option("--query <name>", "as this parameter of the URL")
    .option("--value-file <path>", "the value is in this file; a line's end at its end is taken off")
    .option("--from-env <variable>", "the value is in this variable of the command")
    .option("--keep-value", "it stays; where it goes cannot change without it")
    .option("--server-file <path>", "a file of the server has it, for each request anew (for administrators)")
    .option("--server-variable <name>", "a variable of the server has it (for administrators)")
    .option("--placeholder <text>", "what programs see in its place, where its form matters to them")
    .option("--everywhere", "each new sandbox gets it")
    .option("--no-everywhere", "sandboxes that name it get it (default)")
    .addHelpText("after", wrappedNote("A changed value counts from the next request on, also in sandboxes that run."))
    .action((name: string, options: SetOptions) =>
      withServer({ ...options, stays: "background" }, async ({ client, kind, signal }) => {
        const placement = placementOf(options);
        const request: SecretRequest = {
          hosts: options.host,
          ...(placement === undefined ? {} : { placement }),
          placeholder: options.placeholder,
          everywhere: options.everywhere,
          ...(await givenValue(options)),
        };
        const saved = await client.secrets.put(name, request, { signal });
        if (options.json === true) return printJson(saved);
        note(`${saved.name} goes to ${saved.hosts.join(", ")} as ${told(saved)}`);
        if (saved.kept) return;
        const until =
          kind === "here" ? "its value is gone with this command" : "its value is in the server's memory alone";
        note(`${until}: set \`secrets.key\` to keep it, encrypted`);
      }),
    );
}

function placementOf({ bearer, header, basic, query }: SetOptions): SecretRequest["placement"] {
  const given = [bearer === true, header, basic, query].filter((each) => each !== undefined && each !== false);
  if (given.length > 1) throw new StacyError("invalid", "give one of --bearer, --header, --basic and --query");
  if (header !== undefined) return { kind: "header", ...header };
  if (basic !== undefined) return { kind: "basic", username: basic };
  if (query !== undefined) return { kind: "query", name: query };
  return bearer === true ? { kind: "bearer" } : undefined;
}

/** Never an argument: those are seen by everybody on the host. */
async function givenValue(options: SetOptions): Promise<Partial<Pick<SecretRequest, "value" | "file" | "variable">>> {
  const { serverFile: file, serverVariable: variable, valueFile, fromEnv } = options;
  if (options.keepValue === true) return {};
  if (file !== undefined) return { file };
  if (variable !== undefined) return { variable };
  if (fromEnv !== undefined) {
    const value = process.env[fromEnv];
    if (value === undefined) throw new StacyError("invalid", `the variable ${fromEnv} is not set`);
    return { value };
  }
  if (valueFile === undefined && process.stdin.isTTY) {
    throw new StacyError("invalid", "the value comes from standard input", {
      remedy: "pipe it in, or use --value-file, --from-env or --keep-value",
    });
  }
  const value = valueFile === undefined ? await text(process.stdin) : await readFile(valueFile, "utf8");
  return { value: value.replace(/\r?\n$/, "") };
}

function list(): Command {
  return clientCommand("ls", "list secrets, without their values").action((options: ClientOptions) =>
    withServer(options, async ({ client, signal }) => {
      const all = await client.secrets.list({ signal });
      if (options.json === true) return printJson(all);
      printTable(
        ["NAME", "HOSTS", "GOES AS", "VALUE", "EVERYWHERE", "CHANGED"],
        all.map((secret) => [
          secret.name,
          secret.hosts.join(","),
          told(secret),
          secret.available ? (secret.kept ? "kept" : "in memory") : "missing",
          secret.everywhere ? "yes" : "no",
          sinceNow(secret.updatedAt),
        ]),
        { drop: ["EVERYWHERE", "CHANGED", "GOES AS"], shorten: ["HOSTS", "NAME", "GOES AS"] },
      );
    }),
  );
}

function remove(): Command {
  return clientCommand("rm", "delete secrets")
    .argument("<name...>")
    .action((names: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        for (const name of names) await client.secrets.remove(name, { signal });
      }),
    );
}

function told({ placement: { kind, name, template, username } }: Secret): string {
  if (kind === "header") return `${name}: ${template}`;
  if (kind === "basic") return `the password of ${username || "a user"}`;
  return kind === "query" ? `?${name}=` : "bearer";
}

function parseHeader(given: string): { name: string; template: string } {
  const at = given.indexOf(":");
  const template = given.slice(at + 1).trim();
  if (at <= 0 || !template.includes("{}")) throw new InvalidArgumentError("write it as 'X-Api-Key: {}'.");
  return { name: given.slice(0, at).trim(), template };
}
