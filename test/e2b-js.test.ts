/** E2B's published JavaScript SDK, unmodified, against a real server with real sandboxes. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Sandbox as Interpreter } from "@e2b/code-interpreter";
import {
  AuthenticationError,
  CommandExitError,
  FileNotFoundError,
  InvalidArgumentError,
  NotFoundError,
  Sandbox,
  SandboxNotFoundError,
  Template,
  TimeoutError,
  Volume,
} from "e2b";
import { Scenarios } from "./e2b-scenarios.ts";
import { Server } from "./server-support.ts";

const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;
let server: Server;
before(async () => {
  server = await Server.create(`auth: {api_key: ${KEY}}\nproviders: {default: qemu}\n`);
  Object.assign(process.env, { E2B_API_URL: server.url, E2B_SANDBOX_URL: server.url, E2B_API_KEY: KEY });
});
after(() => server?.[Symbol.asyncDispose]());

/** Waits until it holds: for what comes by itself. */
async function until(what: string, holds: () => boolean): Promise<void> {
  const limit = Date.now() + 20_000;
  while (!holds()) {
    if (Date.now() > limit) throw new Error(`waited in vain: ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

test("sandboxes, files, commands, terminals and watchers", { timeout: 600_000 }, async (t) => {
  const all = new Scenarios();
  let sandbox = await Sandbox.create({
    timeoutMs: 300_000,
    metadata: { purpose: "tests", n: "1" },
    envs: { OF_ALL: "yes" },
  });
  const { sandboxId } = sandbox;

  await all.run("a sandbox is running", async () => assert.equal(await sandbox.isRunning(), true));
  await all.run("its information", async () => {
    const info = await sandbox.getInfo();
    assert.equal(info.sandboxId, sandboxId);
    assert.deepEqual([info.state, info.templateId, info.metadata], ["running", "base", { purpose: "tests", n: "1" }]);
    assert.ok(info.endAt > new Date() && info.cpuCount >= 1 && info.memoryMB > 0);
  });
  await all.run("listed by metadata, in pages", async () => {
    const found = await Sandbox.list({ query: { metadata: { purpose: "tests" } } }).nextItems();
    assert.deepEqual(
      found.map((each) => each.sandboxId),
      [sandboxId],
    );
    assert.deepEqual(await Sandbox.list({ query: { metadata: { purpose: "none" } } }).nextItems(), []);
    assert.deepEqual(await Sandbox.list({ query: { state: ["paused"] } }).nextItems(), []);
    const pages = Sandbox.list({ limit: 1 });
    assert.equal((await pages.nextItems()).length, 1);
    assert.equal(pages.hasNext, false);
  });
  await all.run("its time is set", async () => {
    await sandbox.setTimeout(600_000);
    const { endAt } = await sandbox.getInfo();
    assert.ok(endAt.getTime() - Date.now() > 590_000);
  });
  await all.run("connected by its id from another client", async () => {
    const other = await Sandbox.connect(sandboxId);
    assert.equal((await other.commands.run("echo $OF_ALL")).stdout, "yes\n");
  });
  await all.run("metrics", async () => {
    const [now] = await sandbox.getMetrics();
    assert.ok(now !== undefined && now.memTotal > 0 && now.diskTotal > now.diskUsed);
  });
  await all.run("a wrong key", async () => {
    await assert.rejects(Sandbox.create({ apiKey: `e2b_${"f".repeat(40)}` }), AuthenticationError);
  });
  await all.run("a template that is not there", async () => {
    await assert.rejects(Sandbox.create("no-such-template"), /template 'no-such-template' not found/);
  });
  await all.run("a sandbox that is not there", async () => {
    await assert.rejects(Sandbox.connect("sb-00000000"), SandboxNotFoundError);
    await assert.rejects(Sandbox.getInfo("sb-00000000"), SandboxNotFoundError);
    assert.equal(await Sandbox.kill("sb-00000000"), false);
  });

  await all.run("a command's output and end", async () => {
    const done = await sandbox.commands.run("echo out; echo err >&2");
    assert.deepEqual([done.stdout, done.stderr, done.exitCode], ["out\n", "err\n", 0]);
  });
  await all.run("a command that fails", async () => {
    await assert.rejects(sandbox.commands.run("echo before; exit 7"), (error) => {
      assert.ok(error instanceof CommandExitError);
      assert.deepEqual([error.exitCode, error.stdout], [7, "before\n"]);
      return true;
    });
  });
  await all.run("output as it comes, any text", async () => {
    const seen: string[] = [];
    const text = "ä☺\u{1f600} $'\"\\";
    const done = await sandbox.commands.run("cat", {
      stdin: true,
      background: true,
      onStdout: (data) => void seen.push(data),
    });
    await sandbox.commands.sendStdin(done.pid, text);
    await until("the echo", () => seen.join("") === text);
    await sandbox.commands.closeStdin(done.pid);
    assert.equal((await done.wait()).stdout, text);
  });
  await all.run("environment and directory of a command", async () => {
    const { stdout } = await sandbox.commands.run("echo $A-$OF_ALL-$E2B_SANDBOX; pwd", {
      envs: { A: "b c" },
      cwd: "/tmp",
    });
    assert.equal(stdout, "b c-yes-true\n/tmp\n");
  });
  await all.run("a directory that is not there", async () => {
    await assert.rejects(sandbox.commands.run("true", { cwd: "/no/such" }), InvalidArgumentError);
  });
  await all.run("a user of the image, and one that it has not", async () => {
    assert.equal((await sandbox.commands.run("id -un", { user: "nobody" })).stdout, "nobody\n");
    await assert.rejects(sandbox.commands.run("true", { user: "nosuch" }), AuthenticationError);
  });
  await all.run("a command in the background: list, connect, kill", async () => {
    const started = await sandbox.commands.run("while :; do echo tick; sleep 0.2; done", { background: true });
    const list = await sandbox.commands.list();
    assert.ok(list.some(({ pid, args }) => pid === started.pid && args.includes("-c")));
    let ticks = 0;
    const followed = await sandbox.commands.connect(started.pid, { onStdout: () => void ticks++ });
    await until("output at the second reader", () => ticks > 1);
    assert.equal(await sandbox.commands.kill(started.pid), true);
    await assert.rejects(followed.wait(), /signal: killed/);
    await assert.rejects(started.wait(), CommandExitError);
    assert.equal(await sandbox.commands.kill(started.pid), false);
  });
  await all.run("a client that goes leaves the command running", async () => {
    const started = await sandbox.commands.run("sleep 1; echo late > /tmp/late", { background: true });
    await started.disconnect();
    const ended = await sandbox.commands.connect(started.pid);
    await ended.wait();
    assert.equal(await sandbox.files.read("/tmp/late"), "late\n");
  });
  await all.run("a command that takes too long", async () => {
    await assert.rejects(sandbox.commands.run("sleep 60", { timeoutMs: 1_500 }), TimeoutError);
    const { stdout } = await sandbox.commands.run(
      "ps -e -o args= 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
    );
    assert.doesNotMatch(stdout, /^sleep 60/m);
  });
  await all.run("much output", async () => {
    const { stdout } = await sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x");
    assert.equal(stdout.length, 3_000_000);
  });
  await all.run("ten commands at once", async () => {
    const done = await Promise.all(Array.from({ length: 10 }, (_, i) => sandbox.commands.run(`echo ${i}`)));
    assert.deepEqual(
      done.map(({ stdout }) => stdout.trim()),
      Array.from({ length: 10 }, (_, i) => String(i)),
    );
  });

  await all.run("a file is written and read: text, bytes, streams, blobs", async () => {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => i % 251);
    const info = await sandbox.files.write("/tmp/dir/that is/new/text ä.txt", "Hello ☺");
    assert.deepEqual([info.name, info.path, info.type], ["text ä.txt", "/tmp/dir/that is/new/text ä.txt", "file"]);
    assert.equal(await sandbox.files.read(info.path), "Hello ☺");
    await sandbox.files.write("/tmp/bytes", bytes.buffer as ArrayBuffer);
    assert.deepEqual(await sandbox.files.read("/tmp/bytes", { format: "bytes" }), bytes);
    const blob = await sandbox.files.read("/tmp/bytes", { format: "blob" });
    assert.equal(blob.size, bytes.length);
    const stream = await sandbox.files.read("/tmp/bytes", { format: "stream" });
    assert.equal((await new Response(stream).arrayBuffer()).byteLength, bytes.length);
    await sandbox.files.write("/tmp/streamed", new Blob([bytes]).stream());
    assert.deepEqual(await sandbox.files.read("/tmp/streamed", { format: "bytes" }), bytes);
    await sandbox.files.write("/tmp/empty", "");
    assert.equal(await sandbox.files.read("/tmp/empty"), "");
  });
  await all.run("gzip both ways", async () => {
    await sandbox.files.write("/tmp/packed", "again ".repeat(10_000), { gzip: true });
    assert.equal(await sandbox.files.read("/tmp/packed", { gzip: true }), "again ".repeat(10_000));
  });
  await all.run("several files at once", async () => {
    const written = await sandbox.files.write([
      { path: "/tmp/many/a", data: "1" },
      { path: "/tmp/many/deep/b", data: "2" },
      { path: "relative", data: "3" },
    ]);
    assert.deepEqual(
      written.map(({ path }) => path),
      ["/tmp/many/a", "/tmp/many/deep/b", "/root/relative"],
    );
    assert.equal(await sandbox.files.read("/tmp/many/deep/b"), "2");
    assert.equal(await sandbox.files.read("relative"), "3");
  });
  await all.run("a file belongs to the user that is named", async () => {
    await sandbox.files.write("/tmp/owned/by/file", "x", { user: "nobody" });
    const { owner, permissions, size, type, mode } = await sandbox.files.getInfo("/tmp/owned/by/file");
    assert.deepEqual([owner, permissions, size, type, mode], ["nobody", "-rw-r--r--", 1, "file", 0o644]);
    assert.equal((await sandbox.files.getInfo("/tmp/owned")).owner, "nobody");
  });
  await all.run("a file that is not there", async () => {
    await assert.rejects(
      sandbox.files.read("/tmp/none"),
      (error) => error instanceof FileNotFoundError || error instanceof NotFoundError,
    );
    assert.equal(await sandbox.files.exists("/tmp/none"), false);
    assert.equal(await sandbox.files.exists("/tmp/bytes"), true);
  });
  await all.run("reading a directory, writing to one", async () => {
    await assert.rejects(sandbox.files.read("/tmp"), InvalidArgumentError);
    await assert.rejects(sandbox.files.write("/tmp", "x"), InvalidArgumentError);
  });
  await all.run("directories: made, listed, deep", async () => {
    assert.equal(await sandbox.files.makeDir("/tmp/tree/one/two"), true);
    assert.equal(await sandbox.files.makeDir("/tmp/tree/one"), false);
    await sandbox.files.write("/tmp/tree/file", "1");
    assert.deepEqual(
      (await sandbox.files.list("/tmp/tree")).map(({ name, type }) => [name, type]),
      [
        ["file", "file"],
        ["one", "dir"],
      ],
    );
    const deep = await sandbox.files.list("/tmp/tree", { depth: 2 });
    assert.deepEqual(
      deep.map(({ path }) => path),
      ["/tmp/tree/file", "/tmp/tree/one", "/tmp/tree/one/two"],
    );
    await assert.rejects(sandbox.files.list("/tmp/none"), NotFoundError);
    await assert.rejects(sandbox.files.list("/tmp/tree/file"), InvalidArgumentError);
  });
  await all.run("links", async () => {
    await sandbox.commands.run("ln -sf /tmp/tree/file /tmp/tree/link; ln -sfn /tmp/tree/one /tmp/tree/dirlink");
    const link = await sandbox.files.getInfo("/tmp/tree/link");
    assert.deepEqual([link.type, link.symlinkTarget], ["file", "/tmp/tree/file"]);
    assert.equal((await sandbox.files.getInfo("/tmp/tree/dirlink")).type, "dir");
  });
  await all.run("renamed, removed", async () => {
    const moved = await sandbox.files.rename("/tmp/tree/file", "/tmp/elsewhere/new name");
    assert.equal(moved.path, "/tmp/elsewhere/new name");
    await assert.rejects(sandbox.files.rename("/tmp/none", "/tmp/x"), NotFoundError);
    await sandbox.files.remove("/tmp/tree");
    assert.equal(await sandbox.files.exists("/tmp/tree"), false);
    await sandbox.files.remove("/tmp/none");
  });
  await all.run("changes in a directory", async () => {
    await sandbox.files.makeDir("/tmp/watched/below");
    const seen: string[] = [];
    const handle = await sandbox.files.watchDir(
      "/tmp/watched",
      (event) => void seen.push(`${event.type} ${event.name}`),
      {
        recursive: true,
        timeoutMs: 0,
      },
    );
    await sandbox.files.write("/tmp/watched/below/file", "x");
    await until("the file", () => seen.some((each) => each.endsWith("below/file")));
    await sandbox.commands.run("mv /tmp/watched/below/file /tmp/watched/moved; rm /tmp/watched/moved");
    await until("the removal", () => seen.includes("remove moved"));
    await handle.stop();
    await assert.rejects(
      sandbox.files.watchDir("/tmp/none", () => {}),
      NotFoundError,
    );
  });
  await all.run("signed links to read and to write", async () => {
    const put = await sandbox.uploadUrl("/tmp/signed", { useSignatureExpiration: 60 });
    const form = new FormData();
    form.append("file", new Blob(["by link"]), "signed");
    assert.equal((await fetch(put, { method: "POST", body: form })).status, 200);
    const get = await sandbox.downloadUrl("/tmp/signed");
    assert.equal(await (await fetch(get)).text(), "by link");
    assert.equal((await fetch(get.replace("signed", "bytes"))).status, 401);
    assert.equal((await fetch(await sandbox.downloadUrl("/tmp/signed", { useSignatureExpiration: -10 }))).status, 401);
  });
  await all.run("nothing without the sandbox's token", async () => {
    const headers = { "e2b-sandbox-id": sandboxId };
    assert.equal((await fetch(`${server.url}/files?path=/etc/passwd`, { headers })).status, 401);
    const call = { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: "{}" };
    assert.equal((await fetch(`${server.url}/process.Process/List`, call)).status, 401);
  });

  await all.run("a terminal: input, size, end", async () => {
    let screen = "";
    const pty = await sandbox.pty.create({
      cols: 90,
      rows: 20,
      onData: (data) => {
        screen += Buffer.from(data);
      },
      timeoutMs: 0,
    });
    await sandbox.pty.sendInput(pty.pid, new TextEncoder().encode("stty size; echo $TERM\n"));
    await until("the size", () => /20 90\r\n/.test(screen) && /xterm-256color\r\n/.test(screen));
    await sandbox.pty.resize(pty.pid, { cols: 100, rows: 30 });
    await sandbox.pty.sendInput(pty.pid, new TextEncoder().encode("stty size; exit\n"));
    await until("the new size", () => /30 100\r\n/.test(screen));
    assert.equal((await pty.wait()).exitCode, 0);
  });
  await all.run("a terminal is killed", async () => {
    const pty = await sandbox.pty.create({ cols: 80, rows: 24, onData: () => {} });
    assert.equal(await sandbox.pty.kill(pty.pid), true);
    await assert.rejects(pty.wait(), CommandExitError);
  });

  await all.run("paused with what runs in it, and resumed by connecting", async () => {
    await sandbox.commands.run("echo kept > /dev/shm/memory");
    assert.equal(await sandbox.pause(), true);
    assert.equal((await Sandbox.list({ query: { state: ["paused"] } }).nextItems())[0]?.sandboxId, sandboxId);
    assert.equal(await sandbox.isRunning(), false);
    sandbox = await Sandbox.connect(sandboxId, { timeoutMs: 300_000 });
    assert.equal((await sandbox.commands.run("cat /dev/shm/memory")).stdout, "kept\n");
  });
  await all.run("a snapshot, and a sandbox from it", async () => {
    await sandbox.files.write("/root/state", "saved");
    const { snapshotId } = await sandbox.createSnapshot();
    const listed = await Sandbox.listSnapshots({ sandboxId }).nextItems();
    assert.ok(listed.some((each) => each.snapshotId === snapshotId));
    const copy = await Sandbox.create(snapshotId, { timeoutMs: 60_000 });
    assert.equal(await copy.files.read("/root/state"), "saved");
    await copy.kill();
    assert.equal(await Sandbox.deleteSnapshot(snapshotId), true);
  });
  await all.run("an image by its name", async () => {
    const small = await Sandbox.create("stacyvm/busybox", { timeoutMs: 60_000 });
    assert.equal((await small.commands.run("echo in sh")).stdout, "in sh\n");
    await small.kill();
  });
  await all.run("the code interpreter: state, output, results, errors", async () => {
    const notebook = await Interpreter.connect(sandboxId);
    await notebook.runCode("x = 41");
    const seen: string[] = [];
    const done = await notebook.runCode("print('out')\nx + 1", { onStdout: ({ line }) => void seen.push(line) });
    assert.deepEqual([done.text, done.logs.stdout, seen, done.executionCount], ["42", ["out\n"], ["out\n"], 2]);
    const wrong = await notebook.runCode("1 / 0");
    assert.deepEqual([wrong.error?.name, wrong.error?.value], ["ZeroDivisionError", "division by zero"]);
    const [rich] = (await notebook.runCode("class H:\n  def _repr_html_(self): return '<b>'\nH()")).results;
    assert.equal(rich?.html, "<b>");
  });
  await all.run("contexts of the code interpreter", async () => {
    const notebook = await Interpreter.connect(sandboxId);
    const context = await notebook.createCodeContext({ cwd: "/tmp" });
    assert.equal((await notebook.runCode("import os; os.getcwd()", { context })).text, "'/tmp'");
    assert.equal((await notebook.runCode("x", { context })).error?.name, "NameError");
    assert.ok((await notebook.listCodeContexts()).some(({ id }) => id === context.id));
    await notebook.restartCodeContext(context);
    await notebook.removeCodeContext(context);
    await assert.rejects(notebook.runCode("1", { context }));
  });
  // This client tells the status and not the words.
  await all.refused("code in other languages", /501/, () =>
    Interpreter.connect(sandboxId).then((notebook) => notebook.runCode("1", { language: "javascript" })),
  );
  await all.refused("volumes", /volumes/, () => Volume.create("v"));
  await all.refused("templates are built", /building templates/, () =>
    Template.build(Template().fromImage("alpine"), "t", { cpuCount: 1, memoryMB: 128 }),
  );
  await all.refused("a pause at the end of its time", /autoPause/, () =>
    Sandbox.create({ lifecycle: { onTimeout: "pause" } }),
  );
  await all.run("killed, and gone", async () => {
    assert.equal(await sandbox.kill(), true);
    assert.equal(await sandbox.isRunning(), false);
    await assert.rejects(sandbox.commands.run("true"), SandboxNotFoundError);
    assert.equal(await sandbox.kill(), false);
  });

  t.diagnostic(all.table("e2b for JavaScript"));
  console.log(all.table("e2b for JavaScript"));
  assert.deepEqual(all.failed, []);
  assert.ok(all.results.length >= 40, String(all.results.length));
});
