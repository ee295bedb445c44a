/** Each command with a real sandbox; none has a server, so every one of them starts its own and finds the sandbox again. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { link, mkdir, readdir, readFile, readlink, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { Cli, ended, said } from "./cli-support.ts";

describe("the command line without a server", { timeout: 600_000 }, () => {
  let cli: Cli;
  let id: string;
  before(async () => {
    cli = await Cli.create();
    id = await cli.out("spawn", "stacyvm/busybox", "-m", "256", "-e", "FROM=spawn", "-l", "for=test");
  });
  after(() => cli[Symbol.asyncDispose]());

  test("spawn prints the id and saves the golden snapshot; ls, inspect and json say the same", async () => {
    assert.match(id, /^sb-[0-9a-f]{8}$/);
    assert.equal(await cli.out("ls", "-q"), id);
    assert.match(await cli.out("ls"), new RegExp(`^ID .*\n${id} +stacyvm/busybox +running +1 +256 MiB +cold`));
    const [found] = await cli.json("ls");
    assert.deepEqual([found.id, found.memory_mb, found.metadata], [id, 256, { for: "test" }]);
    const [detail] = JSON.parse(await cli.out("inspect", id.slice(0, 8)));
    assert.equal(detail.id, id);
    assert.ok(detail.stats.mem_bytes > 0);
    const second = await cli.json("spawn", "--start", "--name", "second", "stacyvm/busybox", "-m", "256");
    assert.equal(second.boot.path, "restored");
    assert.match(await cli.out("ls"), new RegExp(`^ID +NAME .*\n${second.id} +second +stacyvm/busybox`));
    assert.equal(await cli.out("exec", "second", "--", "echo", "by its name"), "by its name");
    const ran: { command: string }[] = await cli.json("ps", "-a", "second");
    assert.ok(
      ran.some(({ command }) => command === "sh"),
      "the image's own command was started",
    );
    assert.equal(
      await cli.out("ls", "--filter", "label=for=test", "--format", "{{.id}} {{.metadata.for}}"),
      `${id} test`,
    );
    assert.equal(await cli.out("inspect", "second", "--format", "{{.name}} {{.boot.path}}"), "second restored");
    assert.equal(await cli.out("rm", "second"), second.id);
    assert.deepEqual(await readdir(join(cli.data, "sandboxes")), [id]);
  });

  test("exec: output, exit codes, signals, standard input, environment, time limit, json", async () => {
    const run = (...args: string[]) => cli.run(["exec", id, ...args]);
    const both = await run("--", "sh", "-c", "echo out; echo err >&2; exit 7");
    assert.deepEqual(both, { code: 7, stdout: "out\n", stderr: "err\n" });
    assert.equal((await run("sh", "-c", "kill -9 $$")).code, 137);
    assert.equal((await run("/no/such")).code, 127);
    assert.equal((await run("/etc/passwd")).code, 126);
    assert.equal((await run("--timeout", "300ms", "--", "sleep", "60")).code, 124);
    assert.equal(
      (await run("-e", "A=b c", "-w", "/tmp", "--", "sh", "-c", "echo $A $FROM; pwd")).stdout,
      "b c spawn\n/tmp\n",
    );
    const bytes = randomBytes(300_000).toString("base64");
    assert.equal((await cli.run(["exec", "-i", id, "cat"], { input: bytes })).stdout, bytes);
    assert.equal((await cli.run(["exec", id, "cat"], { input: "not passed on" })).stdout, "");
    const json = await run("--json", "--", "sh", "-c", "echo o; exit 3");
    assert.deepEqual([json.code, JSON.parse(json.stdout)], [3, { exit_code: 3, stdout: "o\n", stderr: "" }]);
    assert.equal((await cli.run(["exec", "sb-00000000", "true"])).code, 125);
  });

  test("a reader that has had enough is no error, and what it read from is ended", async () => {
    const child = cli.start(["exec", id, "yes"]);
    child.stdout?.once("data", () => child.stdout?.destroy());
    const { code, stderr } = await ended(child);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.doesNotMatch(await cli.out("ps", id), /yes/);
  });

  test("Ctrl-C is passed on; a second one leaves", async () => {
    const trap = "trap 'echo caught' INT; echo ready; while :; do sleep 0.2; done";
    const child = cli.start(["exec", id, "--", "sh", "-c", trap]);
    let seen = "";
    child.stdout?.on("data", (data) => {
      seen += data;
      if (data.includes("ready") || data.includes("caught")) child.kill("SIGINT");
    });
    assert.equal((await ended(child)).code, 130);
    assert.equal(seen, "ready\ncaught\n");
  });

  test("exec -d, ps, kill, logs of a program and of the kernel", async () => {
    const process = await cli.out("exec", "-d", id, "--", "sh", "-c", "echo begun; sleep 600");
    assert.match(await cli.out("ps", id), new RegExp(`\n${process} +\\d+ +running .* sh -c echo begun`));
    const logs = cli.start(["logs", "-f", "--timestamps", id]);
    const output = ended(logs);
    await said(logs);
    assert.equal(await cli.out("logs", id, process), "begun");
    assert.equal(await cli.out("logs", "--tail", "0", id), "");
    // Kept in the machine's memory: also by a copy, after a suspend, and for the server of the next command.
    const copy = await cli.out("fork", id);
    await cli.out("suspend", copy);
    await cli.out("resume", copy);
    assert.equal(await cli.out("logs", copy), "begun");
    await cli.out("rm", copy);
    assert.equal(await cli.out("kill", "-s", "KILL", id, process), process);
    assert.match((await output).stdout, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z begun\n$/);
    const all: { command: string; exit_code?: number }[] = await cli.json("ps", "-a", id);
    assert.ok(all.some((each) => each.exit_code === 137));
    // Only what somebody ran: the machine was exercised before it was saved.
    assert.deepEqual(
      all.filter(({ command }) => /exercise/.test(command)),
      [],
    );
    assert.match(await cli.out("logs", "--console", "-n", "5", id), /\S/);
    const following = cli.start(["logs", "-f", "--console", id]);
    following.stdout?.once("data", () => following.kill("SIGINT"));
    assert.equal((await ended(following)).code, 130);
  });

  test("cp: files and directories, both ways, links and modes, streams", async () => {
    const here = join(cli.data, "copy");
    await mkdir(join(here, "deep/empty"), { recursive: true });
    await writeFile(join(here, "a.bin"), randomBytes(70_000), { mode: 0o640 });
    await writeFile(join(here, "deep/b"), "");
    await symlink("../a.bin", join(here, "deep/link"));
    // Names are bytes; two names of one file stay that.
    const odd = Buffer.from(`${here}/caf\xe9\xff`, "latin1");
    await writeFile(odd, "of any bytes");
    await link(join(here, "a.bin"), join(here, "same"));
    const old = new Date(-100_000_000_000);
    await utimes(join(here, "a.bin"), old, old);
    await cli.out("cp", here, `${id}:/tmp/in`);
    await cli.out("cp", `${id}:/tmp/in`, `${here}.back`);
    assert.deepEqual(await readFile(join(`${here}.back`, "a.bin")), await readFile(join(here, "a.bin")));
    assert.equal((await stat(join(`${here}.back`, "a.bin"))).mode & 0o777, 0o640);
    assert.equal(await readlink(join(`${here}.back`, "deep/link")), "../a.bin");
    assert.equal(await readFile(Buffer.from(`${here}.back/caf\xe9\xff`, "latin1"), "utf8"), "of any bytes");
    const [one, same] = await Promise.all(["a.bin", "same"].map((name) => stat(join(`${here}.back`, name))));
    assert.deepEqual([one?.ino, one?.mtimeMs], [same?.ino, old.getTime()]);
    assert.deepEqual((await readdir(join(`${here}.back`, "deep"))).sort(), ["b", "empty", "link"]);
    // Also the name of what is copied, and of where it goes; a shell gives them, since Node's arguments for a child are UTF-8.
    const odds = `set -e; main="$1 $2"; cd "$3"; d=$(printf 'caf\\351'); mkdir "$d"; echo inside > "$d/x"
$main cp "$d" "$4:/tmp/"; $main cp "$4:/tmp/$d" "$d/back$d"; cat "$d/back$d/x"`;
    const argv = ["sh", "-c", odds, "sh", process.execPath, join(packageRoot, "src/cli/main.ts"), here, id];
    assert.equal(await cli.program(argv), "inside");
    await cli.out("cp", join(here, "a.bin"), `${id}:/tmp/in/deep/`);
    await cli.out("cp", `${id}:/tmp/in/deep/a.bin`, join(cli.data, "one"));
    assert.deepEqual(await readFile(join(cli.data, "one")), await readFile(join(here, "a.bin")));
    assert.equal((await cli.run(["cp", "-", `${id}:/tmp/said`], { input: "streamed" })).code, 0);
    assert.equal(await cli.out("cp", `${id}:/tmp/said`, "-"), "streamed");
    const wrong = await cli.run(["cp", "a", "b"]);
    assert.deepEqual([wrong.code, wrong.stdout], [2, ""]);
    assert.match(wrong.stderr, /hint: write it as ID:PATH/);
    const missing = await cli.run(["cp", join(here, "nothing"), `${id}:/tmp/x`]);
    assert.match(missing.stderr, /nothing/);
    assert.doesNotMatch(missing.stderr, /connection/);
  });

  test("files: every verb", async () => {
    const files = (...args: string[]) => cli.out("files", ...args);
    await files("mkdir", id, "/tmp/f/g");
    await cli.run(["files", "write", id, "/tmp/f/x", "--mode", "600"], { input: "one\n" });
    await cli.run(["files", "write", id, "/tmp/f/x", "--append"], { input: "two\n" });
    assert.equal(await files("cat", id, "/tmp/f/x"), "one\ntwo");
    await files("cp", id, "/tmp/f/x", "/tmp/f/y");
    await files("mv", id, "/tmp/f/y", "/tmp/f/g/z");
    await files("chmod", id, "755", "/tmp/f/g/z");
    assert.equal(JSON.parse(await files("stat", id, "/tmp/f/g/z"))[0].mode, "755");
    assert.equal(await files("glob", id, "/tmp/f/*"), "/tmp/f/g\n/tmp/f/x");
    assert.match(await files("ls", "-r", id, "/tmp/f"), /0755 +0:0 +8 B .*\/tmp\/f\/g\/z/);
    // The sandbox itself goes on changing it: a command of ours that is over before the watch begins would, as its server,
    // wait for the watch, and the watch for a change.
    const writer = await cli.out(
      "exec",
      "-d",
      id,
      "--",
      "sh",
      "-c",
      "while :; do echo x > /tmp/f/new; sleep 0.2; done",
    );
    const watching = cli.start(["files", "watch", id, "/tmp/f", "--json"]);
    watching.stdout?.once("data", () => watching.kill("SIGINT"));
    assert.match(JSON.parse((await ended(watching)).stdout.split("\n")[0] ?? "").path, /new/);
    await cli.out("kill", id, writer);
    await files("rm", "-r", id, "/tmp/f");
    assert.equal((await cli.run(["files", "ls", id, "/tmp/f"])).code, 1);
  });

  test("forward: a local port leads into the sandbox; the command beside it uses the same server", async () => {
    await cli.out(
      "exec",
      id,
      "--",
      "sh",
      "-c",
      "mkdir -p /tmp/www; echo inside > /tmp/www/f; httpd -p 8080 -h /tmp/www",
    );
    const forward = cli.start(["forward", id, "0:8080", "--json"]);
    const done = ended(forward);
    const { port } = JSON.parse(await said(forward));
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/f`)).text(), "inside\n");
    const raw = connect(port, "127.0.0.1").end("GET /f HTTP/1.0\r\n\r\n").setEncoding("utf8");
    assert.match((await Array.fromAsync(raw)).join(""), /inside\n$/);
    const { server } = await cli.json("version");
    assert.match(server.url, /^http:\/\/127\.0\.0\.1:/);
    assert.equal(await cli.out("ls", "-q"), id);
    forward.kill("SIGINT");
    // It is ended by that, and has done what it was for: no error, in no words either.
    const { code, stderr } = await done;
    assert.deepEqual([code, stderr], [0, ""]);
    assert.equal((await cli.json("version")).server, undefined);
  });

  test("forward: a program that answers when it has read all sees the end of what was sent", async () => {
    await cli.out("exec", id, "--", "sh", "-c", "nc -l -p 8081 -e wc -c >/dev/null 2>&1 &");
    const forward = cli.start(["forward", id, "0:8081", "--json"]);
    const done = ended(forward);
    const { port } = JSON.parse(await said(forward));
    const socket = connect(port, "127.0.0.1").setEncoding("utf8");
    socket.end(Buffer.alloc(3_000_000));
    assert.equal((await Array.fromAsync(socket)).join(""), "3000000\n");
    forward.kill("SIGINT");
    await done;
  });

  test("pause, resume, suspend, extend, fork, checkpoint", async () => {
    assert.equal(await cli.out("pause", id), `${id} paused`);
    assert.equal(await cli.out("resume", id), `${id} running`);
    assert.equal(await cli.out("suspend", id), `${id} suspended`);
    assert.equal(await cli.out("resume", id), `${id} running`);
    const [extended] = await cli.json("extend", id, "2h");
    assert.ok(Date.parse(extended.expires_at) > Date.now() + 7_000_000);
    await cli.run(["files", "write", id, "/tmp/kept"], { input: "kept" });
    const own = async (): Promise<number> => (await cli.json("inspect", id))[0].stats.mem_bytes;
    const before = await own();
    const [copy = ""] = (await cli.out("fork", id, "-e", "COPY=yes")).split("\n");
    assert.equal(await cli.out("exec", copy, "--", "sh", "-c", "echo $(cat /tmp/kept) $COPY"), "kept yes");
    // The save reads all of its 256 MiB; what it has read and not written is no memory of its own.
    const grown = (await own()) - before;
    assert.ok(before > 2 ** 20 && grown < 64 * 2 ** 20, `${before} and ${grown} more after a fork`);
    await cli.out("checkpoint", copy, "clean");
    await cli.out("exec", copy, "rm", "/tmp/kept");
    assert.equal(await cli.out("checkpoint", "restore", copy, "clean"), copy);
    assert.equal(await cli.out("exec", copy, "cat", "/tmp/kept"), "kept");
    await cli.out("rm", copy);
    await cli.out("checkpoint", "rm", "clean");
    const checkpoint = await cli.out("checkpoint", id, "mark");
    assert.match(await cli.out("checkpoint", "ls"), new RegExp(`${checkpoint} +mark +${id}`));
    const later = await cli.out("spawn", "--checkpoint", "mark");
    assert.equal(await cli.out("exec", later, "cat", "/tmp/kept"), "kept");
    await cli.out("destroy", later);
    assert.equal(await cli.out("checkpoint", "rm", "mark"), checkpoint);
  });

  test("template, snapshot, image, pool, events, top", async () => {
    await cli.out("template", "create", "small", "stacyvm/busybox", "-m", "256", "--description", "for tests");
    assert.match(await cli.out("template", "ls"), /small +1 +stacyvm\/busybox +1 +256 MiB/);
    assert.equal(JSON.parse(await cli.out("template", "inspect", "small"))[0].description, "for tests");
    const made = await cli.out("template", "spawn", "small");
    await cli.out("rm", made);
    await cli.out("template", "rm", "small");
    const key = await cli.out("snapshot", "build", "stacyvm/busybox", "-m", "256");
    assert.match(await cli.out("snapshot", "ls"), new RegExp(`${key.slice(0, 12)} +stacyvm/busybox +golden +qemu`));
    assert.equal(JSON.parse(await cli.out("snapshot", "inspect", key.slice(0, 8)))[0].key, key);
    assert.equal((await cli.json("snapshot", "gc", "--dry-run")).dry_run, true);
    assert.equal((await cli.run(["snapshot", "rm", "zz"])).code, 1);
    assert.match(await cli.out("image", "ls"), /stacyvm\/busybox/);
    assert.deepEqual(await cli.json("pool"), { enabled: false });
    const events = cli.start(["events", "--after", "evt-0", "--type", "sandbox.*", "--json"]);
    events.stdout?.once("data", () => events.kill("SIGINT"));
    assert.match((await ended(events)).stdout, /"type":"sandbox.created".*"sandbox_id":"sb-/);
    assert.match(
      await cli.out("top", "--once"),
      new RegExp(`spawns +last \\d+ ms[\\s\\S]*${id} +stacyvm/busybox +running`),
    );
    assert.equal((await cli.json("top")).sandboxes[0].id, id);
  });

  test("two at once: the second uses the first one's server, which waits for it", async () => {
    const first = cli.start(["exec", id, "--", "sh", "-c", "echo up; sleep 600"]);
    const firstEnded = ended(first);
    await said(first);
    const second = cli.start(["exec", id, "-i", "--", "sh", "-c", "echo up; cat"]);
    const secondEnded = ended(second);
    await said(second);
    first.kill("SIGINT");
    await said(first, "stderr"); // it says what it waits for
    assert.equal(first.exitCode, null);
    second.stdin?.end("still served");
    assert.deepEqual(await secondEnded, { code: 0, stdout: "up\nstill served", stderr: "" });
    assert.match((await firstEnded).stderr, /waiting for them/);
  });

  test("rm --all leaves nothing", async () => {
    assert.equal(await cli.out("rm", "--all"), id);
    assert.equal(await cli.out("ls", "-q"), "");
    // What is left of it is removed beside the answer.
    while ((await readdir(join(cli.data, "sandboxes"))).length > 0) await new Promise((wake) => setTimeout(wake, 20));
  });
});
