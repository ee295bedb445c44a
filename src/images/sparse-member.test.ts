/** Sparse members as GNU tar writes them, in all its forms, and maps that lie. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, open, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { tar } from "../../test/images-support.ts";
import { StacyError } from "../host/error.ts";
import { buildBase } from "./base.ts";
import { ErofsBase } from "./erofs-reader.ts";
import { readTar } from "./tar.ts";

const run = promisify(execFile);
let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "sparse-"));
});
after(() => rm(dir, { recursive: true, force: true }));

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function contents(archive: Buffer): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  await readTar(pieces(archive, 4999), async (entry, body) => {
    const bytes = Buffer.concat(await Array.fromAsync(body));
    assert.equal(bytes.length, entry.size);
    found[entry.path] = sha256(bytes);
  });
  return found;
}

test("every form that GNU tar writes is read as the file that it was", async () => {
  // Holes at the begin, between and at the end; so many pieces that the old form needs blocks of its own for them.
  const holes = await open(join(dir, "holes"), "w");
  for (let i = 1; i < 60; i++) await holes.write(Buffer.from(`piece ${i}`), 0, null, i * 65_536 + (i % 7));
  await holes.close();
  await truncate(join(dir, "holes"), 60 * 65_536 + 17);
  await writeFile(join(dir, "empty"), "");
  await truncate(join(dir, "empty"), 300_000);
  await writeFile(join(dir, "plain"), "plain");
  const long = `${"long-name-".repeat(20)}.bin`;
  await writeFile(join(dir, long), Buffer.alloc(10));
  await truncate(join(dir, long), 200_000);
  const names = ["holes", "empty", "plain", long];
  const wanted = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, sha256(await readFile(join(dir, name)))])),
  );
  const forms = [["gnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]];
  for (const [format = "", version] of forms) {
    const file = join(dir, `${format}-${version}.tar`);
    const options = [
      `--format=${format}`,
      "--sparse",
      ...(version === undefined ? [] : [`--sparse-version=${version}`]),
    ];
    await run("tar", ["--create", ...options, `--directory=${dir}`, `--file=${file}`, ...names]);
    assert.ok((await stat(file)).size < 500_000, "the archive itself is sparse");
    assert.deepEqual(await contents(await readFile(file)), wanted, `${format} ${version}`);
  }
});

test("a hole occupies nothing of the base", async () => {
  await writeFile(join(dir, "large"), "begin");
  await truncate(join(dir, "large"), 2 ** 30);
  await run("tar", ["--create", "--sparse", `--directory=${dir}`, `--file=${join(dir, "large.tar")}`, "large"]);
  const archive = await readFile(join(dir, "large.tar"));
  const base = join(dir, "large.img");
  await buildBase(base, [{ whiteouts: true, open: () => pieces(archive, 1 << 16) }]);
  assert.ok((await stat(base)).blocks * 512 < 1 << 20);
  await using image = await ErofsBase.open(base);
  const node = (await image.tree({ entries: 10, bytes: 2 ** 31 })).find("large");
  assert.equal(node?.type === "file" ? node.data.size : undefined, 2 ** 30);
});

test("maps that lie are refused before their numbers are used", async () => {
  const sparse = (records: Record<string, string>, content = ""): Buffer => tar([{ path: "s", content, pax: records }]);
  const one = { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s" };
  const cases: [RegExp, Buffer][] = [
    [/leaves the file/, sparse({ "GNU.sparse.size": "10", "GNU.sparse.map": "8,4" }, "data")],
    [/goes backwards/, sparse({ "GNU.sparse.size": "10", "GNU.sparse.map": "4,2,0,2" }, "data")],
    [/names 2 bytes and the archive has 4/, sparse({ "GNU.sparse.size": "10", "GNU.sparse.map": "4,2" }, "data")],
    [/no number/, sparse({ "GNU.sparse.size": "10", "GNU.sparse.map": "4,-2" }, "data")],
    [/too long/, sparse({ ...one, "GNU.sparse.realsize": "10" }, "99999999\n".padEnd(512, "\0"))],
    [/has no end/, sparse({ ...one, "GNU.sparse.realsize": "10" }, "3\n0\n".padEnd(512, "\0"))],
    [/unknown form/, sparse({ ...one, "GNU.sparse.major": "2", "GNU.sparse.realsize": "10" })],
    [/names 0 bytes and the archive has 4/, tar([{ path: "s", type: "S", content: "data" }])],
  ];
  for (const [words, archive] of cases) {
    await assert.rejects(contents(archive), (error) => {
      assert.ok(error instanceof StacyError, String(error));
      assert.match(error.message, words);
      return true;
    });
  }
});
