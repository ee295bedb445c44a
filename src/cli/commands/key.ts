import { Command, Option } from "commander";
import type { Key } from "../../../sdk/src/index.ts";
import { e2bForm } from "../../access/secret.ts";
import { allowOption, parseDuration } from "../arguments.ts";
import { type ClientOptions, clientCommand, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { note, printJson, printLine, sinceNow } from "../output.ts";
import { printTable } from "../table.ts";

/** `stacyvm key ...`: who may call the server, beside its own user. */
export function keyCommand(): Command {
  const command = new Command("key").description(
    "make, list, rotate and revoke keys of the server (for administrators)",
  );
  for (const part of [create(), list(), rotate(), revoke()]) command.addCommand(part);
  return command;
}

interface CreateOptions extends ClientOptions {
  scope: Key["scopes"][number];
  owner?: string;
  expires?: string;
  allow?: string[];
  e2b?: boolean;
}

function create(): Command {
  return clientCommand("create", "make a key and print it; it is shown this once")
    .argument("<name>", "for people, and for the audit log")
    .addOption(
      new Option("--scope <scope>", "read: look; use: sandboxes too; admin: everything, of all owners")
        .choices(["read", "use", "admin"])
        .default("use"),
    )
    .option("--owner <name>", "whose it is (default: the caller's own)")
    .option("--expires <time>", "how long it works, for example 720h (default: until it is revoked)", parseDuration)
    .addOption(allowOption("its sandboxes at most"))
    .option("--e2b", "print it in the form that E2B's clients take")
    .addHelpText(
      "after",
      wrappedNote(
        "With --owner it is another owner's: what is made with it exists for that owner's keys and for administrators only. Others of this host and, if the server listens to them, of other hosts send it as X-API-Key, or by STACYVM_API_KEY.",
      ),
    )
    .action((name: string, options: CreateOptions) =>
      withServer(options, async ({ client, signal }) => {
        const { scope, owner, expires, allow: allowedHosts } = options;
        const made = await client.keys.create(
          { name, owner, scopes: [scope], expiresIn: expires, allowedHosts },
          { signal },
        );
        if (options.json === true) return printJson(made);
        printLine(options.e2b === true ? e2bForm(made.key) : made.key);
        note(`${made.id}: ${scope} for the owner ${made.owner}; keep it, it is not shown again`);
      }),
    );
}

function list(): Command {
  return clientCommand("ls", "list keys; those of the configuration are not among them")
    .option("--owner <name>", "only this one's")
    .option("-a, --all", "those too that have expired or were revoked")
    .action((options: ClientOptions & { owner?: string; all?: boolean }) =>
      withServer(options, async ({ client, signal }) => {
        const all = await client.keys.list({
          signal,
          ...(options.owner === undefined ? {} : { owner: options.owner }),
        });
        const shown = options.all === true ? all : all.filter(({ state }) => state === "active");
        if (options.json === true) return printJson(shown);
        printTable(
          ["ID", "NAME", "OWNER", "SCOPES", "STATE", "KEY", "AGE", "LAST USED", "EXPIRES"],
          shown.map((key) => [
            key.id,
            key.name,
            key.owner,
            key.scopes.join(","),
            key.state,
            `${key.hint}...`,
            sinceNow(key.createdAt),
            key.lastUsedAt === undefined ? "never" : sinceNow(key.lastUsedAt),
            key.expiresAt ?? "",
          ]),
          { drop: ["KEY", "AGE", "STATE", "LAST USED", "EXPIRES"], shorten: ["NAME", "OWNER", "EXPIRES"] },
        );
      }),
    );
}

function rotate(): Command {
  return clientCommand("rotate", "give a key another secret and print it; it is shown this once")
    .argument("<key>", "id or name")
    .option("--grace <time>", "how long the one before works on (default: not at all)", parseDuration)
    .action((key: string, options: ClientOptions & { grace?: string }) =>
      withServer(options, async ({ client, signal }) => {
        const made = await client.keys.rotate(key, { grace: options.grace }, { signal });
        if (options.json === true) return printJson(made);
        printLine(made.key);
        note(`${made.id}: the secret before ${options.grace === undefined ? "is void" : `works for ${options.grace}`}`);
      }),
    );
}

function revoke(): Command {
  return clientCommand("revoke", "end keys, at once and for good")
    .argument("<key...>", "ids or names")
    .action((keys: string[], options: ClientOptions) =>
      withServer(options, async ({ client, signal }) => {
        const revoked: Key[] = [];
        for (const key of keys) {
          revoked.push(await client.keys.revoke(key, { signal }));
          if (options.json !== true) printLine(revoked.at(-1)?.id ?? key);
        }
        if (options.json === true) printJson(revoked);
      }),
    );
}
