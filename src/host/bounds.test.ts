/** docs/security.md says what the bounds are, and which tests hold its claims. `STACYVM_UPDATE=1` writes the table. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  ARCHIVE_BOUNDS,
  BUILD_BOUNDS,
  CONSOLE_BOUNDS,
  DATAGRAM_BOUNDS,
  DISK_BOUNDS,
  E2B_BOUNDS,
  FLEET_BOUNDS,
  GUEST_BOUNDS,
  INTERPRETER_BOUNDS,
  JSON_BOUNDS,
  MONITOR_BOUNDS,
  OWNER_BOUNDS,
  REGISTRY_BOUNDS,
  UNPACK_BOUNDS,
} from "./bounds.ts";
import { packageRoot } from "./paths.ts";

const PAGE = join(packageRoot, "docs/security.md");
const BEGIN = "<!-- bounds -->\n";

function shown(name: string, value: number): string {
  if (/bytes/i.test(name)) return value >= 2 ** 20 ? `${value / 2 ** 20} MiB` : `${value / 2 ** 10} KiB`;
  if (name.endsWith("Ms")) return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
  return value.toLocaleString("en-US");
}

function table(): string {
  const groups = {
    guest: GUEST_BOUNDS,
    monitor: MONITOR_BOUNDS,
    json: JSON_BOUNDS,
    console: CONSOLE_BOUNDS,
    datagrams: DATAGRAM_BOUNDS,
    disk: DISK_BOUNDS,
    interpreter: INTERPRETER_BOUNDS,
    e2b: E2B_BOUNDS,
    owner: OWNER_BOUNDS,
    registry: REGISTRY_BOUNDS,
    archive: ARCHIVE_BOUNDS,
    build: BUILD_BOUNDS,
    "copy out": UNPACK_BOUNDS,
    "other nodes": FLEET_BOUNDS,
  };
  const rows = Object.entries(groups).flatMap(([group, bounds]) =>
    Object.entries(bounds).map(([name, value]) => `| ${group} | \`${name}\` | ${shown(name, value)} |`),
  );
  return `\n| from | bound | |\n| --- | --- | --- |\n${rows.join("\n")}\n`;
}

test("the page has the bounds as they are", async () => {
  const page = await readFile(PAGE, "utf8");
  const at = page.indexOf(BEGIN) + BEGIN.length;
  const end = page.indexOf("\nOne guest at its worst", at);
  assert.ok(at >= BEGIN.length && end > 0);
  if (process.env.STACYVM_UPDATE === "1") {
    await writeFile(PAGE, page.slice(0, at) + table() + page.slice(end));
    return;
  }
  assert.equal(page.slice(at, end), table());
});
