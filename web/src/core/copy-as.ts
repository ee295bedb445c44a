/** The same spawn as a command and as programs. */
import type { SpawnRequest } from "../../../sdk/src/index.ts";
import { wireNames } from "./wire-names.ts";

export const LANGUAGES = ["CLI", "curl", "TypeScript", "Python"] as const;
export type Language = (typeof LANGUAGES)[number];

/** @param server where it is */
export function copyAs(language: Language, request: SpawnRequest, server: string): string {
  const fields = Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined)) as SpawnRequest;
  if (language === "CLI") return cli(fields, server);
  if (language === "curl") return curl(fields, server);
  return language === "TypeScript" ? typescript(fields, server) : python(fields, server);
}

function cli(request: SpawnRequest, server: string): string {
  const { image, memoryMb, vcpus, diskMb, ttl, env, metadata, allowedHosts, idleTimeout, idleAction } = request;
  const { name, setup, template, checkpoint, provider, ownerId } = request;
  const pairs = (flag: string, map: Record<string, string> = {}): string[] =>
    Object.entries(map).map(([name, value]) => `${flag} ${quoted(`${name}=${value}`)}`);
  const option = (flag: string, value: string | number | undefined): string[] =>
    value === undefined ? [] : [`${flag} ${quoted(String(value))}`];
  const parts = [
    `STACYVM_URL=${quoted(server)} stacyvm spawn`,
    ...(image === undefined ? [] : [quoted(image)]),
    ...option("--name", name),
    ...option("--template", template),
    ...option("--checkpoint", checkpoint),
    ...option("--memory", memoryMb === undefined ? undefined : `${memoryMb}m`),
    ...option("--vcpus", vcpus),
    ...option("--disk", diskMb === undefined ? undefined : `${diskMb}m`),
    ...option("--ttl", ttl),
    ...option("--idle-timeout", idleTimeout),
    ...option("--idle-action", idleAction),
    ...option("--provider", provider),
    ...option("--owner", ownerId),
    ...pairs("--env", env),
    ...pairs("--label", metadata),
    ...(allowedHosts ?? []).flatMap((host) => option("--allow", host)),
    ...(setup ?? []).flatMap((command) => option("--setup", command)),
  ];
  return parts.join(" \\\n  ");
}

function curl(request: SpawnRequest, server: string): string {
  const body = JSON.stringify(wireNames(request), undefined, 2);
  return [
    `curl -X POST ${quoted(`${server}/api/v1/sandboxes`)}`,
    '-H "X-API-Key: $STACYVM_API_KEY"',
    "-H 'Content-Type: application/json'",
    `-d ${quoted(body)}`,
  ].join(" \\\n  ");
}

function typescript(request: SpawnRequest, server: string): string {
  const body = JSON.stringify(request, undefined, 2).replace(/^( *)"([A-Za-z_$][\w$]*)":/gm, "$1$2:");
  return `import { Client } from "@stacyvm/sdk";

const client = new Client({ url: ${JSON.stringify(server)}, apiKey: process.env.STACYVM_API_KEY });
await using sandbox = await client.create(${body});
console.log((await sandbox.exec("uname -a")).stdout);
`;
}

function python(request: SpawnRequest, server: string): string {
  const fields = Object.entries(wireNames(request)).map(([name, value]) => `    ${name}=${literal(value, "    ")},\n`);
  return `import os
from stacyvm_sdk import Client

client = Client(${JSON.stringify(server)}, api_key=os.environ.get("STACYVM_API_KEY"))
with client.create(
${fields.join("")}) as sandbox:
    print(sandbox.exec("uname -a").stdout)
`;
}

/** For a shell: as it is, or in single quotes. */
function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON's strings, lists and maps are Python's, too. */
function literal(value: unknown, indent: string): string {
  return JSON.stringify(value, undefined, 4)
    .replaceAll("\n", `\n${indent}`)
    .replace(/\btrue$/, "True")
    .replace(/\bfalse$/, "False");
}
