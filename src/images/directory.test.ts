/** A directory of the host as a tar: what users copy and images are made of. */
import assert from "node:assert/strict";
import { link, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { archiveOf } from "./directory.ts";
import { readTar } from "./tar.ts";

async function entriesOf(tar: AsyncIterable<Uint8Array>): Promise<Map<string, string>> {
  const entries = new Map<string, string>();
  await readTar(tar, async (entry, body) => {
    let text = "";
    for await (const chunk of body) text += String(chunk);
    entries.set(entry.path, [entry.type, entry.uid, entry.mtime, entry.link, text].join(" ").trim());
  });
  return entries;
}

test("names of any bytes, hard links, times before 1970; everything is root's unless its owners are asked for", async () => {
  const dir = await mkdtemp(join(tmpdir(), "directory-"));
  try {
    await mkdir(join(dir, "deep"));
    await writeFile(Buffer.from(`${dir}/caf\xe9\xff`, "latin1"), "odd");
    await writeFile(join(dir, "deep/a"), "text");
    await utimes(join(dir, "deep/a"), new Date(-5000), new Date(-5000));
    await link(join(dir, "deep/a"), join(dir, "deep/b"));
    await symlink(Buffer.from("\xfe", "latin1"), join(dir, "link"));
    const entries = await entriesOf(archiveOf(dir, { asRoot: false }));
    const at = (name: string) => entries.get(name) ?? entries.get(`./${name}`);
    assert.match(at("caf\xe9\xff") ?? "", /^file 0 .* odd$/);
    assert.match(at("deep/a") ?? "", /^file 0 -5 +text$/);
    assert.match(at("deep/b") ?? "", /^hardlink 0 .*deep\/a$/);
    assert.match(at("link") ?? "", /^symlink 0 .* \xfe$/);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test("what is not there is an error that says so", async () => {
  await assert.rejects(
    entriesOf(archiveOf("/nonexistent/tree", { asRoot: false })),
    (error) => error instanceof StacyError && /nonexistent/.test(error.message),
  );
});
