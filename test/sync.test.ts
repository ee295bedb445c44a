/** `stacyvm sync` with a real machine: both ways, only what differs, nothing lost, over what happens to the sandbox. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Cli, ended, MAIN, type Ran } from "./cli-support.ts";
import { Server } from "./server-support.ts";

describe("sync with a sandbox under QEMU", () => {
  let server: Server;
  let cli: Cli;
  let outside: string;
  let dir: string;
  let id: string;
  before(async () => {
    outside = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "sync-"));
    server = await Server.create("providers: { default: qemu }\n");
    cli = await Cli.create();
    cli.env.STACYVM_URL = server.url;
    id = (await server.ok("POST", "/sandboxes", { image: "stacyvm/busybox" })).id;
  });
  after(async () => {
    await cli?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await rm(outside, { recursive: true, force: true });
  });

  let places = 0;
  /** A directory of its own for each test. @returns its place in the sandbox */
  const begin = async (): Promise<string> => {
    places += 1;
    dir = join(outside, `dir-${places}`);
    await mkdir(dir);
    return `/work-${places}`;
  };
  const run = async (command: string): Promise<string> => {
    const { exit_code, stdout, stderr } = await server.ok("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(exit_code, 0, `${command}: ${stderr}`);
    return stdout.trim();
  };
  const sync = async (place: string, ...options: string[]): Promise<string[]> => {
    const steps = await cli.json("sync", dir, `${id}:${place}`, ...options);
    return steps.map((step: { what: string; path: string; as?: string }) =>
      [step.what, step.path, step.as ?? ""].join(" ").trim(),
    );
  };
  const here = (name: string): Promise<string> => readFile(join(dir, name), "utf8");

  test("files, directories, links, modes and sizes go both ways, and only what differs", async () => {
    const work = await begin();
    await mkdir(join(dir, "src/deep"), { recursive: true });
    await writeFile(join(dir, "src/program"), "#!/bin/sh\necho ran\n");
    await chmod(join(dir, "src/program"), 0o750);
    await writeFile(join(dir, "src/deep/ä name"), "");
    await symlink("program", join(dir, "src/link"));
    const large = randomBytes(3 * 2 ** 20 + 17);
    await writeFile(join(dir, "large"), large);
    await run(`mkdir -p ${work}/out && echo made > ${work}/out/made && ln -s /etc/passwd ${work}/out/away`);
    assert.deepEqual((await sync(work)).sort(), [
      ...["fetched out", "fetched out/away", "fetched out/made"],
      ...["sent large", "sent src", "sent src/deep", "sent src/deep/ä name", "sent src/link", "sent src/program"],
    ]);
    assert.equal(await run(`${work}/src/link; stat -c %a ${work}/src/program`), "ran\n750");
    assert.equal(await run(`sha256sum < ${work}/large`), await cli.program(["sh", "-c", `sha256sum < '${dir}/large'`]));
    assert.deepEqual([await here("out/made"), await readlink(join(dir, "out/away"))], ["made\n", "/etc/passwd"]);
    assert.deepEqual(await sync(work), []);
    await writeFile(join(dir, "large"), "small");
    await chmod(join(dir, "src/program"), 0o700);
    await run(`echo more >> ${work}/out/made; chmod 600 ${work}/src/deep; rm ${work}/src/link; mkdir ${work}/src/link`);
    assert.deepEqual((await sync(work)).sort(), [
      ...["fetched out/made", "fetched src/deep", "fetched src/link"],
      ...["sent large", "sent src/program"],
    ]);
    assert.equal(await run(`cat ${work}/large; stat -c %a ${work}/src/program`), "small700");
    assert.equal(await here("out/made"), "made\nmore\n");
    assert.ok((await lstat(join(dir, "src/link"))).isDirectory());
    assert.equal((await stat(join(dir, "src/deep"))).mode & 0o777, 0o600);
    // As git and others do it: a new file in the place of the old one, of the same size.
    await run(`cd ${work} && echo MADE > n && echo more >> n && mv n out/made`);
    assert.deepEqual(await sync(work), ["fetched out/made"]);
    assert.equal(await here("out/made"), "MADE\nmore\n");
  });

  test("what is removed on one side goes on the other, but never what was changed there", async () => {
    const work = await begin();
    for (const name of ["a", "b", "c", "d"]) await writeFile(join(dir, name), name);
    await mkdir(join(dir, "old/er"), { recursive: true });
    await writeFile(join(dir, "old/er/file"), "x");
    await sync(work);
    await unlink(join(dir, "a"));
    await rm(join(dir, "old"), { recursive: true });
    await run(`rm ${work}/b; rm ${work}/c; echo changed > ${work}/d`);
    await writeFile(join(dir, "c"), "changed here");
    await unlink(join(dir, "d"));
    assert.deepEqual((await sync(work)).sort(), [
      ...["fetched d", "removed-here b", "removed-there a", "removed-there old", "removed-there old/er"],
      ...["removed-there old/er/file", "sent c"],
    ]);
    assert.deepEqual((await readdir(dir)).sort(), ["c", "d"]);
    assert.equal(await run(`cd ${work}; cat c d; ls`), "changed herechanged\nc\nd");
    // A disk that is not mounted.
    await rm(dir, { recursive: true });
    await mkdir(dir);
    const refused = await cli.run(["sync", dir, `${id}:${work}`]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /is empty, and 2 files and directories were in it.*--reset/s);
    assert.deepEqual((await sync(work, "--reset")).sort(), ["fetched c", "fetched d"]);
  });

  test("what was changed on both sides is kept twice, on both", async () => {
    const work = await begin();
    await writeFile(join(dir, "text.md"), "first");
    await writeFile(join(dir, "both"), "first");
    await sync(work);
    await writeFile(join(dir, "text.md"), "from here");
    await writeFile(join(dir, "both"), "the same");
    await mkdir(join(dir, "kind"));
    await writeFile(join(dir, "kind/file"), "x");
    await run(`cd ${work}; printf 'from there' > text.md; printf 'the same' > both; echo a file > kind`);
    assert.deepEqual((await sync(work)).sort(), [
      ...[`conflict kind kind.${id}`, `conflict text.md text.${id}.md`, `fetched kind.${id}`, `fetched text.${id}.md`],
      ...["sent kind", "sent kind/file", "sent text.md"],
    ]);
    assert.deepEqual([await here("text.md"), await here(`text.${id}.md`)], ["from here", "from there"]);
    assert.equal(
      await run(`cd ${work}; cat text.md text.${id}.md kind.${id} kind/file`),
      "from herefrom therea file\nx",
    );
    assert.deepEqual(await sync(work), []);
  });

  test("what .gitignore names stays where it is, by the rules of either side; .git goes with --git", async () => {
    const work = await begin();
    await run(`mkdir -p ${work}/sub/keep ${work}/node_modules/x ${work}/.git; cd ${work}; echo node_modules > .gitignore
printf '*.log\\n!keep.log\\n' > sub/.gitignore; touch node_modules/x/y sub/a.log sub/keep.log sub/keep/b.log .git/HEAD`);
    await mkdir(join(dir, "node_modules"));
    await writeFile(join(dir, "node_modules/own"), "here");
    const fetched = [".gitignore", "sub", "sub/.gitignore", "sub/keep", "sub/keep.log"];
    assert.deepEqual(
      (await sync(work)).sort(),
      fetched.map((name) => `fetched ${name}`),
    );
    assert.deepEqual(await readdir(join(dir, "node_modules")), ["own"]);
    assert.deepEqual((await sync(work, "--git")).sort(), ["fetched .git", "fetched .git/HEAD"]);
    // What becomes ignored is not gone, on either side.
    await writeFile(join(dir, ".gitignore"), "node_modules\nsub\n");
    assert.deepEqual(await sync(work), ["sent .gitignore"]);
    assert.equal(await run(`ls ${work}/sub`), "a.log\nkeep\nkeep.log");
    assert.deepEqual((await readdir(join(dir, "sub"))).sort(), [".gitignore", "keep", "keep.log"]);
  });

  test("a guest that puts links in the way writes nothing outside", async () => {
    const work = await begin();
    const secret = join(outside, "secret");
    await mkdir(secret);
    await writeFile(join(secret, "file"), "canary");
    await run(`mkdir -p ${work}/d; echo x > ${work}/d/file`);
    await sync(work);
    // Here a user has put a link in the place of the directory, and the guest changes what is in it.
    await rm(join(dir, "d"), { recursive: true });
    await symlink(secret, join(dir, "d"));
    await run(`echo hostile > ${work}/d/file; echo new > ${work}/d/new; ln -s ${secret} ${work}/s; mkdir ${work}/t`);
    await sync(work);
    await run(`rm ${work}/s; mkdir ${work}/s; echo hostile > ${work}/s/file`);
    await sync(work);
    assert.equal(await readFile(join(secret, "file"), "utf8"), "canary");
    assert.deepEqual(await readdir(secret), ["file"]);
    assert.equal(await here("s/file"), "hostile\n");
  });

  test("killed at any moment it leaves no half of a file, and nothing twice; the next one does the rest", async (t) => {
    const work = await begin();
    for (let n = 0; n < 400; n++) {
      await mkdir(join(dir, `d${n % 20}`), { recursive: true });
      await writeFile(join(dir, `d${n % 20}/h${n}`), randomBytes(1_000 + n * 200));
    }
    await run(
      `mkdir -p ${work}; cd ${work}; for n in $(seq 200); do mkdir -p e$((n % 9)); head -c $((n * 300)) /dev/urandom > e$((n % 9))/g$n; done`,
    );
    for (let round = 0; round < 4; round++) {
      const child = cli.start(["sync", dir, `${id}:${work}`]);
      const over = ended(child);
      let lines = 0;
      const enough = new Promise<void>((settle) => {
        child.stdout?.on("data", (data) => {
          lines += String(data).split("\n").length - 1;
          if (lines > 30 + 40 * round) settle();
        });
      });
      await Promise.race([enough, over]);
      child.kill("SIGKILL");
      await over;
    }
    const begun = performance.now();
    const rest = await sync(work);
    t.diagnostic(`${rest.length} of 629 in ${Math.round(performance.now() - begun)} ms`);
    assert.deepEqual(
      rest.filter((step) => step.startsWith("conflict")),
      [],
    );
    const sums = "find . -type f ! -path '*/.stacyvm-sync-*' | sort | xargs sha256sum | sha256sum";
    assert.equal(await run(`cd ${work} && ${sums}`), await cli.program(["sh", "-c", `cd '${dir}' && ${sums}`]));
    assert.equal(await run(`find ${work} -type f | wc -l`), "600", "what the killed ones have left is gone too");
    assert.deepEqual(await sync(work), []);
  });

  test("what does not fit onto the sandbox's disk is an error that names it; what was sent before is there, and nothing else", async () => {
    const work = await begin();
    const { id: small } = await server.ok("POST", "/sandboxes", { image: "stacyvm/busybox", disk_mb: 64 });
    await writeFile(join(dir, "a-small"), "small");
    // Batches are of 16 MiB.
    for (let n = 0; n < 4; n++) await writeFile(join(dir, `large-${n}`), randomBytes(20 << 20));
    for (let round = 0; round < 2; round++) {
      const { code, stderr } = await cli.run(["sync", dir, `${small}:${work}`]);
      assert.equal(code, 1);
      assert.match(
        stderr,
        /^error: the sandbox's disk has no room for large-\d; what was sent before is there\n.*--disk/,
      );
      assert.doesNotMatch(stderr, /^ +at /m);
    }
    const listed = await server.ok("POST", `/sandboxes/${small}/exec`, {
      command: `ls -A ${work}; cat ${work}/a-small`,
    });
    assert.match(listed.stdout, /^a-small\n(large-[0-2]\n)+small$/);
    await server.ok("DELETE", `/sandboxes/${small}`);
  });

  test("a server that was found by the data directory and is started anew has another key: with --watch it goes on", async () => {
    const work = await begin();
    const { STACYVM_URL: url = "", ...env } = cli.env;
    Object.assign(env, { STACYVM_DATA_DIR: server.root });
    await writeFile(join(dir, "file"), "first");
    const child = spawn(process.execPath, [MAIN, "sync", dir, `${id}:${work}`, "--watch"], { env, cwd: dir });
    const over = ended(child);
    const words = collect(child);
    await there(work, "file", "first");
    await server.stop("SIGKILL");
    await meets(async () => String(/is out of reach: waiting/.test(words())), "true");
    await writeFile(join(dir, "file"), "second");
    await server.start({}, ["--port", new URL(url).port]);
    await there(work, "file", "second");
    child.kill("SIGINT");
    await over;
  });

  test("with --watch it waits for a server that was killed, and brings what was changed meanwhile on both sides", async () => {
    const work = await begin();
    await writeFile(join(dir, "file"), "first");
    const child = cli.start(["sync", dir, `${id}:${work}`, "--watch"]);
    const over = ended(child);
    const words = collect(child);
    await there(work, "file", "first");
    // What the guest does of its own accord, while nobody can ask it anything.
    await run(`(sleep 2; echo theirs > ${work}/theirs) > /dev/null 2>&1 &`);
    await server.stop("SIGKILL");
    await writeFile(join(dir, "file"), "while there was no server");
    await meets(async () => String(/is out of reach: waiting/.test(words())), "true");
    // The guest has done its part by then.
    await delay(2_000);
    await server.start({}, ["--port", new URL(cli.env.STACYVM_URL as string).port]);
    await there(work, "file", "while there was no server");
    await meets(() => here("theirs"), "theirs\n");
    await writeFile(join(dir, "file"), "afterwards");
    await there(work, "file", "afterwards");
    await run(`echo again > ${work}/theirs`);
    await meets(() => here("theirs"), "again\n");
    child.kill("SIGINT");
    await over;
  });

  test("with --watch changes go at once, also after a pause and a suspend; it ends with the sandbox", async () => {
    const work = await begin();
    await writeFile(join(dir, "file"), "first");
    const child = cli.start(["sync", dir, `${id}:${work}`, "--watch"]);
    const over = ended(child);
    const words = collect(child);
    await there(work, "file", "first");
    await mkdir(join(dir, "new/deep"), { recursive: true });
    await writeFile(join(dir, "new/deep/file"), "below");
    await there(work, "new/deep/file", "below");
    await run(`mkdir ${work}/theirs; echo theirs > ${work}/theirs/file`);
    await meets(() => here("theirs/file"), "theirs\n");
    await run(`rm -r ${work}/new`);
    await meets(() => readdir(dir).then((names) => names.sort().join()), "file,theirs");
    for (const change of ["pause", "suspend"]) {
      await server.ok("POST", `/sandboxes/${id}/${change}`);
      await writeFile(join(dir, "file"), `while it was in ${change}`);
      await meets(async () => String(/is (paused|suspended): waiting/g.test(words())), "true");
      await server.ok("POST", `/sandboxes/${id}/resume`);
      await there(work, "file", `while it was in ${change}`);
      await run(`echo ${change} > ${work}/theirs/file`);
      await meets(() => here("theirs/file"), `${change}\n`);
    }
    const other = cli.run(["sync", dir, `${id}:${work}`]);
    assert.match((await other).stderr, /is being synced with .* already/);
    await server.ok("DELETE", `/sandboxes/${id}`);
    const { code, stderr }: Ran = await over;
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`sandbox ${id} is gone; what was synced is in`));
    assert.equal(await here("file"), "while it was in suspend");
  });

  const there = (work: string, name: string, content: string): Promise<void> =>
    meets(() => run(`cat ${work}/${name} 2>/dev/null || true`), content);
});

/** Waits until it is so. */
async function meets(ask: () => Promise<string>, wanted: string): Promise<void> {
  for (;;) {
    const found = await ask().catch((error: Error) => error.message);
    if (found === wanted) return;
    await delay(50);
  }
}

function collect(child: ChildProcess): () => string {
  let words = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (words += String(data)));
  return () => words;
}
