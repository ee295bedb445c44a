/** Commands about this host and this program: they need no machine. */
import assert from "node:assert/strict";
import { chmod, mkdir, readdir, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { Cli } from "./cli-support.ts";

describe("the command line about this host", { timeout: 300_000 }, () => {
  let cli: Cli;
  before(async () => {
    cli = await Cli.create();
  });
  after(() => cli[Symbol.asyncDispose]());

  test("doctor: what is here, what is missing and its remedy; its exit code says whether a sandbox can start", async () => {
    const good = await cli.run(["doctor"]);
    assert.equal(good.code, 0, good.stdout);
    assert.match(good.stdout, /^✓ QEMU +\d+\.\d+.* guests: linux/m);
    assert.match(good.stdout, /^✓ guest kernel[\s\S]*^✓ guest agent[\s\S]*^A sandbox can start\.$/m);
    const env = { PATH: cli.data, STACYVM_FIRECRACKER: join(cli.data, "none") };
    const bad = await cli.run(["doctor"], { env });
    assert.equal(bad.code, 1);
    assert.match(bad.stdout, /^✗ machine monitor +none can run Linux guests\n.*\n +remedy: install QEMU/m);
    assert.match(bad.stdout, /^A sandbox cannot start yet\.$/m);
    const { ready, findings } = JSON.parse((await cli.run(["doctor", "--json"], { env })).stdout);
    assert.equal(ready, false);
    assert.ok(findings.every((each: { meaning: string }) => each.meaning.length > 0));
  });

  test("doctor --fix closes the data directory and removes what dead processes left", async () => {
    await chmod(cli.data, 0o755);
    // Process 1 lives, but it did not start then.
    await mkdir(join(cli.data, "tmp", "run-00000000-1-1"), { recursive: true });
    await mkdir(join(cli.data, "sandboxes", "sb-00000000"), { recursive: true });
    assert.match((await cli.run(["doctor"])).stdout, /^• leftovers +sb-00000000, tmp\/run-00000000-1-1$/m);
    const fixed = await cli.run(["doctor", "--fix"]);
    assert.equal(fixed.code, 0);
    assert.match(fixed.stdout, /^✓ access[\s\S]*^✓ leftovers +none$/m);
    assert.equal((await stat(cli.data)).mode & 0o777, 0o700);
    for (const name of ["tmp", "sandboxes"]) assert.deepEqual(await readdir(join(cli.data, name)), []);
  });

  test("setup finds everything in place; a part can be named", async () => {
    const { code, stdout, stderr } = await cli.run(["setup", "kernel", "agent"]);
    assert.equal(code, 0, stderr);
    assert.match(stdout + stderr, /guest kernel .*present[\s\S]*guest agent .*present/);
  });

  test("bench measures this machine, and its answer is one JSON document", async () => {
    const { code, stdout, stderr } = await cli.run(["bench", "server", "1", "--json"]);
    assert.equal(code, 0, stderr);
    const { failures, results } = JSON.parse(stdout);
    assert.equal(failures, 0);
    assert.equal(results["record.write"].n, 10);
    assert.ok(results["spawn.first-exec.http"].p50 > 0);
  });

  test("version says which program this is", async () => {
    assert.match(await cli.out("version"), /^stacyvm \d+\.\d+\.\d+, Node \d+.*\nno server runs$/);
    assert.equal((await cli.json("version")).version, await cli.out("--version"));
  });

  test("bash completes commands, options and ids", async () => {
    const program = join(cli.data, "bin", "stacyvm");
    await mkdir(dirname(program));
    await symlink(join(packageRoot, "bin/stacyvm"), program);
    const complete = async (...words: string[]): Promise<string[]> => {
      const script = `source <(stacyvm completion bash); stacyvm() { echo sb-1234abcd; }
        COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _stacyvm; printf '%s\\n' "\${COMPREPLY[@]}"`;
      const env = { ...cli.env, PATH: `${dirname(program)}:${dirname(process.execPath)}:${cli.env.PATH}` };
      return (await runTool("bash", ["-c", script], { env })).toString("utf8").trimEnd().split("\n");
    };
    assert.deepEqual(await complete("stacyvm", "sn"), ["snapshot"]);
    assert.deepEqual(await complete("stacyvm", "snapshot", "b"), ["build"]);
    assert.deepEqual(await complete("stacyvm", "spawn", "--mem"), ["--memory"]);
    assert.deepEqual(await complete("stacyvm", "exec", "sb"), ["sb-1234abcd"]);
  });

  test("a data directory that cannot be is named with the remedy", async () => {
    const env = { STACYVM_DATA_DIR: join(packageRoot, "package.json", "below") };
    const { code, stderr } = await cli.run(["ls"], { env });
    assert.equal(code, 69);
    assert.match(stderr, /^error: there is no data directory: ENOTDIR.*\nhint: set STACYVM_DATA_DIR/);
  });

  test("wrong commands and options are named, the right one is suggested, and the help to read", async () => {
    for (const [args, words] of [
      [["spwan"], /^error: unknown command 'spwan'\n\(Did you mean spawn\?\)\nhint: see `stacyvm --help`\n$/],
      [["image", "bild"], /Did you mean build\?[\s\S]*hint: see `stacyvm image --help`/],
      [["spawn", "--memry", "1g"], /unknown option '--memry'[\s\S]*Did you mean --memory\?/],
      [["run", "-m", "much", "x"], /'much' is invalid\. write a size as 512m or 1g/],
      [["exec"], /missing required argument 'id'\nhint: see `stacyvm exec --help`/],
      [["bench", "nothing"], /spawn/],
    ] as const) {
      const { code, stdout, stderr } = await cli.run([...args]);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      assert.match(stderr, words);
    }
  });
});
