/** Rounds between two directories of this host, one of which plays the sandbox's: random changes on both sides, and what becomes of each content. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterEach, beforeEach, test } from "node:test";
import fc from "fast-check";
import { type Files, NotFoundError } from "../../sdk/src/index.ts";
import { isRoot } from "../host/is-root.ts";
import { openAgreement } from "./agreement.ts";
import { type Step, syncOnce } from "./round.ts";
import { There } from "./there.ts";

let root: string;
let here: string;
let there: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "sync-round-"));
  here = join(root, "here");
  there = join(root, "there");
  for (const side of [here, there]) await mkdir(side);
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** Is called before each change that the sync makes there. */
let meanwhile: (what: string, path: string) => Promise<void> = async () => {};

const missing = (error: unknown): never => {
  if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new NotFoundError("NOT_FOUND", "it is not there");
  throw error;
};

async function facts(path: string): Promise<object> {
  const stat = await lstat(path, { bigint: true }).catch(missing);
  const kind = stat.isDirectory() ? "directory" : stat.isSymbolicLink() ? "symlink" : "file";
  return {
    ...{ path, name: path.slice(path.lastIndexOf("/") + 1), kind, isDir: kind === "directory" },
    ...{ mode: (Number(stat.mode) & 0o7777).toString(8), size: Number(stat.size), uid: 0, gid: 0 },
    modTimeUs: Number(stat.mtimeNs / 1000n),
    ...(kind === "symlink" ? { target: await readlink(path) } : {}),
  };
}

const files = {
  list: async (path: string) => Promise.all((await readdir(path)).map((name) => facts(join(path, name)))),
  stat: facts,
  read: (path: string) => readFile(path, "utf8"),
  readStream: async (path: string) => Readable.toWeb(createReadStream(path)),
  async remove(path: string, options: { recursive?: boolean } = {}) {
    await meanwhile("remove", path);
    if (options.recursive === true) await rm(path, { recursive: true });
    else if ((await lstat(path).catch(missing)).isDirectory()) await rmdir(path);
    else await unlink(path);
  },
  async move(from: string, to: string) {
    await meanwhile("move", to);
    await mkdir(dirname(to), { recursive: true });
    await rename(from, to);
  },
  chmod,
  mkdir: (path: string) => mkdir(path, { recursive: true }),
  async writeArchive(path: string, body: ReadableStream) {
    await meanwhile("unpack", path);
    const tar = spawn("tar", ["-x", "-p", "--no-same-owner", "-C", path], { stdio: ["pipe", "inherit", "inherit"] });
    const ended = once(tar, "exit");
    await pipeline(Readable.fromWeb(body as never), tar.stdin);
    assert.deepEqual(await ended, [0, null]);
  },
} as unknown as Files;

async function sync(options: { reset?: boolean } = {}): Promise<Step[]> {
  const steps: Step[] = [];
  await using agreement = await openAgreement(join(root, "data"), [here, "sb-1", there], options);
  const side = new There(files, there, "mark", new AbortController().signal);
  await syncOnce({ here, there: side, agreement, sandbox: "sb-1", step: (step) => void steps.push(step) });
  return steps;
}

/** Path to what it is. */
async function contents(top: string, at = ""): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const name of await readdir(join(top, at))) {
    const path = join(at, name);
    const stat = await lstat(join(top, path));
    const mode = (stat.mode & 0o777).toString(8);
    if (stat.isDirectory()) {
      all.set(path, `directory ${mode}`);
      for (const [below, what] of await contents(top, path)) all.set(below, what);
    } else if (stat.isSymbolicLink()) all.set(path, `link ${await readlink(join(top, path))}`);
    else all.set(path, `file ${mode} ${await readFile(join(top, path), "utf8")}`);
  }
  return all;
}

type Change = { side: "here" | "there"; what: "write" | "remove" | "mkdir" | "link" | "chmod"; path: string };
let count = 0;
/** Every content is another one, some of the same size. @returns the content */
async function change({ side, what, path }: Change): Promise<void> {
  const full = join(side === "here" ? here : there, path);
  count += 1;
  try {
    if (what === "write") await writeFile(full, `content ${count} `.padEnd(10 + (count % 3) * 10, "x"));
    else if (what === "remove") await rm(full, { recursive: true });
    else if (what === "mkdir") await mkdir(full);
    else if (what === "link") await symlink(`to-${count}`, full);
    else if (!(await lstat(full)).isSymbolicLink())
      await chmod(full, (await lstat(full)).isDirectory() ? 0o700 : ([0o600, 0o640, 0o755][count % 3] ?? 0o600));
  } catch {
    // Something else is there: no change.
  }
}

test("whatever changes, both sides are the same afterwards, and what nobody has removed or written over is there", async () => {
  const path = fc.constantFrom("a", "b", "a/b", "a/c", "d", "d/a", "d/a/b", "e.txt");
  const what = fc.constantFrom("write", "write", "write", "remove", "mkdir", "link", "chmod" as const);
  const one = fc.record({ side: fc.constantFrom("here", "there" as const), what, path });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(one, { maxLength: 8 }), { minLength: 1, maxLength: 4 }), async (rounds) => {
      for (const top of [here, there, join(root, "data")]) await rm(top, { recursive: true, force: true });
      for (const side of [here, there]) await mkdir(side);
      for (const changes of rounds) {
        const agreed = new Set((await contents(here)).values());
        for (const each of changes) await change(each as Change);
        const before = [...(await contents(here)).values(), ...(await contents(there)).values()];
        try {
          await sync();
        } catch (error) {
          // All of one side was removed: that it asks about.
          assert.match((error as Error).message, /is empty, and/);
          await sync({ reset: true });
        }
        const [mine, theirs] = [await contents(here), await contents(there)];
        assert.deepEqual(new Map([...mine].sort()), new Map([...theirs].sort()));
        const bodies = new Set([...mine.values()].map(body));
        for (const content of before.filter((each) => each.startsWith("file") && !agreed.has(each)))
          assert.ok(bodies.has(body(content)) || [...agreed].some((each) => body(each) === body(content)), content);
        assert.deepEqual(await sync(), []);
      }
    }),
    { numRuns: 60 },
  );
});

const body = (content: string): string => content.replace(/^file \d+ /, "");

test("what is written there while a file is on its way is neither overwritten nor removed", async () => {
  await writeFile(join(here, "a"), "old");
  await writeFile(join(here, "b"), "old");
  await sync();
  await writeFile(join(here, "a"), "new from here");
  await rm(join(here, "b"));
  meanwhile = async (what) => {
    if (what !== "unpack") return;
    meanwhile = async () => {};
    // When all has been looked at, and before the first file has its name.
    for (const name of ["a", "c"]) await writeFile(join(there, name), `${name} of that moment`);
  };
  const steps = await sync();
  const told = steps.map(({ what, path }) => `${what} ${path}`);
  assert.deepEqual(told.slice(0, 3), ["removed-there b", "conflict a", "sent a"]);
  // In the order in which the directory there is read.
  assert.deepEqual(told.slice(3).toSorted(), ["fetched a.sb-1", "fetched c"]);
  assert.equal(await readFile(join(here, "a.sb-1"), "utf8"), "a of that moment");
  assert.deepEqual(await contents(here), await contents(there));
});

test("a mode that lets nobody do anything stays that", {
  skip: isRoot() ? false : "nobody but root reads such files",
}, async () => {
  await writeFile(join(here, "file"), "content");
  await mkdir(join(here, "directory"));
  for (const name of ["file", "directory"]) await chmod(join(here, name), 0);
  await sync();
  const wanted = new Map([
    ["directory", "directory 0"],
    ["file", "file 0 content"],
  ]);
  assert.deepEqual(new Map([...(await contents(there))].sort()), wanted);
  assert.deepEqual(await sync(), []);
  await writeFile(join(here, "directory/in"), "in");
  await writeFile(join(here, "file"), "later content");
  await sync();
  assert.deepEqual(await contents(there), await contents(here));
  assert.equal((await contents(here)).get("file"), "file 0 later content");
});
