/** docs/security.md claims nothing without a test: every claim has a row in its table, and what the rows name is there. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";

test("every claim of docs/security.md has a test that exists", async () => {
  const text = await readFile(join(packageRoot, "docs/security.md"), "utf8");
  const [claims = "", limits = ""] = text.split("\n## ");
  const table = text.split("## What holds it")[1] ?? "";
  const rows = [...table.matchAll(/^\| ([^|]+) \| [^|]+ \| (`[^|]+`) \|$/gm)].map(([, claim = "", files = ""]) => ({
    claim,
    files: files.split(", ").map((file) => file.replaceAll("`", "")),
  }));
  const leads = (of: string): string[] =>
    [...of.matchAll(/^(?:- )?\*\*([^*]+?)\.?\*\*/gm)].map(([, lead = ""]) => lead.replaceAll("\n", " "));
  assert.ok(leads(claims).length >= 12, leads(claims).join("; "));
  for (const lead of leads(claims))
    assert.ok(
      rows.some(({ claim }) => claim === lead),
      `no test for: ${lead}`,
    );
  const known = [...leads(claims), ...leads(limits)];
  for (const { claim, files } of rows) {
    assert.ok(
      known.some((lead) => lead.startsWith(claim)),
      `no such claim: ${claim}`,
    );
    for (const file of files) {
      const content = await readFile(join(packageRoot, file), "utf8").catch(() => "");
      assert.match(content, /\btest\(/, `${file}, of the claim "${claim}", has no test`);
    }
  }
});
