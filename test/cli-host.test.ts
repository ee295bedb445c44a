/** Commands about this host and this program: they need no machine. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { kvmState } from "../src/host/kvm.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { locateFirecracker } from "../src/vmm/firecracker/install.ts";
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

  test("doctor on each kind of host: native, interpreted with the kernel for it and without, none", async (t) => {
    const firecracker = await locateFirecracker(dataPaths().assets).catch((error: Error) => error);
    if (firecracker instanceof Error) return t.skip(firecracker.message);
    /** What it says of KVM and of Firecracker. */
    const say = async (env: Record<string, string>): Promise<string> => {
      const { stdout } = await cli.run(["doctor"], { env: { ...env, STACYVM_FIRECRACKER: firecracker.firecracker } });
      return (/^. KVM[\s\S]*?(?=^. QEMU)/m.exec(stdout) ?? [stdout])[0];
    };
    const nothing = join(cli.data, "nothing");
    const kernel = join(nothing, "assets", "kernel-interpreted", "kernel.json");
    await mkdir(dirname(kernel), { recursive: true });
    if ((await kvmState()).device) {
      assert.match(
        await say({ STACYVM_ACCEL: "kvm" }),
        /^✓ KVM +runs Linux guests.*\n✓ Firecracker .*guests: linux, bare/,
      );
      const interpreted = { STACYVM_ACCEL: "interpreted", STACYVM_DATA_DIR: nothing };
      assert.match(
        await say(interpreted),
        /^• KVM .*\n +remedy: use a host with hardware.*`stacyvm setup interpreted-kernel`\)\n✓ Firecracker .*guests: bare; only the bare guest.*made for it is not here.*; run `stacyvm setup interpreted-kernel`, or name a kernel that runs here in `firecracker.kernel`/,
      );
      await writeFile(kernel, JSON.stringify({ release: "6.6.6-interpreted", inputs: "", source: "" }));
      assert.match(
        await say(interpreted),
        /^• KVM [\s\S]*guests: linux, bare; Linux guests boot 6\.6\.6-interpreted, made/,
      );
      const own = await say({ ...interpreted, STACYVM_FIRECRACKER_KERNEL: process.execPath });
      assert.match(
        own,
        /^✗ firecracker\.kernel .* has no .*virtio-vsock.*\n.*\n +remedy: build them in, or name the modules/m,
      );
      const emulated = /^• KVM .*\n +remedy: unset STACYVM_ACCEL[\s\S]*guests: bare; only the bare guest/;
      assert.match(await say({ STACYVM_ACCEL: "tcg" }), emulated);
    }
    if (process.getuid?.() !== 0) return t.diagnostic("a host without /dev/kvm: needs root, to hide it");
    // A mount of its own with what programs need of /dev.
    const hide =
      'mount -t tmpfs none "$0" && cp -a /dev/null /dev/zero /dev/random /dev/urandom "$0" && mount --bind "$0" /dev && exec "$@"';
    const main = join(packageRoot, "src/cli/main.ts");
    const without = await cli.program([
      ...["unshare", "--mount", "sh", "-c", hide, await mkdtemp(join(cli.data, "dev-"))],
      ...[process.execPath, main, "doctor"],
    ]);
    const none =
      /^• KVM +there is no \/dev\/kvm\n +remedy: use a host .*\n• Firecracker .*there is no \/dev\/kvm\n +remedy: /m;
    assert.match(without, none);
    assert.match(without, /^✓ QEMU .* guests: linux; software emulation$/m);
    assert.match(without, /^A sandbox can start\.$/m);
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

  test("a volume is exported to standard output and imported from standard input", async () => {
    const main = join(packageRoot, "src/cli/main.ts");
    const shell = (script: string) => cli.program(["sh", "-c", script, process.execPath, main]);
    await cli.out("volume", "create", "data", "--size", "64m");
    await shell('"$0" "$1" volume export data - > out.gz && "$0" "$1" volume import - back < out.gz');
    const list = (await cli.json("volume", "ls")) as { name: string; size_mb: number }[];
    assert.deepEqual(list.map(({ name, size_mb }) => `${name} ${size_mb}`).sort(), ["back 64", "data 64"]);
    assert.ok(!(await readdir(cli.data)).includes("-"), "a file of that name");
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
      [
        ["exec"],
        /missing required argument 'id'\nhint: `stacyvm ls` lists the sandboxes\nhint: see `stacyvm exec --help`/,
      ],
      [["bench", "nothing"], /spawn/],
    ] as const) {
      const { code, stdout, stderr } = await cli.run([...args]);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      assert.match(stderr, words);
    }
  });
});
