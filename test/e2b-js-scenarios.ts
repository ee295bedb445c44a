/**
 * What users of E2B's JavaScript SDKs do. The SDK is given, so that the same list holds for several published versions; what an
 * older one does not have is left out, and said.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type * as interpreterPackage from "@e2b/code-interpreter";
import type * as sdkPackage from "e2b";
import type { Scenarios } from "./e2b-scenarios.ts";

export interface Sdk {
  e2b: typeof sdkPackage;
  interpreter: typeof interpreterPackage;
}

export interface Place {
  url: string;
  key: string;
  /** How long the sandbox of most scenarios lives; 5 minutes unless it is named. */
  lifeMs?: number;
}

/** Waits until it holds: for what comes by itself. */
async function until(what: string, holds: () => boolean): Promise<void> {
  const limit = Date.now() + 60_000;
  while (!holds()) {
    if (Date.now() > limit) throw new Error(`waited in vain: ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

/** Three at a time: what is done with one sandbox, what runs code or has sandboxes of its own, and what makes templates. */
export async function sandboxScenarios(all: Scenarios, sdk: Sdk, place: Place): Promise<void> {
  const lanes = [ofOneSandbox, ofCodeAndOthers, ofTemplates].map((lane) => lane(all, sdk, place));
  const ended = await Promise.allSettled(lanes);
  for (const lane of ended) if (lane.status === "rejected") throw lane.reason;
}

/** What clients encode before it goes into a query, more than once. */
const ODD = { "of team": "a & b=é+c %41" };

/** A program that answers with the host name that it was asked by. */
const TELLS_HOST = `from http.server import BaseHTTPRequestHandler, HTTPServer
class Told(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode())
HTTPServer(("", 8080), Told).serve_forever()
`;

async function ofOneSandbox(all: Scenarios, { e2b }: Sdk, { url, key, lifeMs = 300_000 }: Place): Promise<void> {
  const { AuthenticationError, CommandExitError, FileNotFoundError, InvalidArgumentError, NotFoundError } = e2b;
  const { NotEnoughSpaceError, Sandbox, SandboxNotFoundError, TimeoutError, Volume } = e2b;
  let sandbox = await Sandbox.create({
    timeoutMs: lifeMs,
    metadata: { purpose: "tests", n: "1", ...ODD },
    envs: { OF_ALL: "yes" },
  });
  const { sandboxId } = sandbox;
  /** What no client of these versions asks for by a method of its own. */
  const asked = async (method: string, path: string, body?: object, more: Record<string, string> = {}) => {
    const headers = { "x-api-key": key, "content-type": "application/json", ...more };
    const answer = await fetch(`${url}${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text}`);
    return text;
  };

  await all.run("a sandbox is running", async () => assert.equal(await sandbox.isRunning(), true));
  await all.run("its information", async () => {
    const info = await sandbox.getInfo();
    assert.equal(info.sandboxId, sandboxId);
    assert.deepEqual(
      [info.state, info.templateId, info.metadata],
      ["running", "base", { purpose: "tests", n: "1", ...ODD }],
    );
    assert.ok(info.endAt > new Date() && info.cpuCount >= 1 && info.memoryMB > 0);
  });
  await all.run("listed by metadata, in pages", async () => {
    const found = await Sandbox.list({ query: { metadata: { purpose: "tests" } } }).nextItems();
    assert.deepEqual(
      found.map((each) => each.sandboxId),
      [sandboxId],
    );
    const odd = await Sandbox.list({ query: { metadata: ODD } }).nextItems();
    assert.deepEqual([odd.length, odd[0]?.sandboxId], [1, sandboxId]);
    assert.deepEqual(await Sandbox.list({ query: { metadata: { purpose: "none" } } }).nextItems(), []);
    const asleep = await Sandbox.list({ query: { state: ["paused"], metadata: { purpose: "tests" } } }).nextItems();
    assert.deepEqual(asleep, []);
    const pages = Sandbox.list({ limit: 1, query: { metadata: { purpose: "tests" } } });
    assert.equal((await pages.nextItems()).length, 1);
    assert.equal(pages.hasNext, false);
  });
  await all.run("its time is set", async () => {
    await sandbox.setTimeout(2 * lifeMs);
    const { endAt } = await sandbox.getInfo();
    assert.ok(endAt.getTime() - Date.now() > 2 * lifeMs - 10_000);
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

  await all.run("a login shell of the user, with its home", async () => {
    const { stdout } = await sandbox.commands.run(
      "shopt -q login_shell && echo login; echo $HOME $USER $SHELL; pwd; echo $BASH_VERSION",
    );
    assert.match(stdout, /^login\n\/home\/user user .*\n\/home\/user\n5\./);
  });
  await all.run("root, by name and by sudo", async () => {
    assert.equal((await sandbox.commands.run("id -u", { user: "root" })).stdout, "0\n");
    assert.equal((await sandbox.commands.run("sudo id -u")).stdout, "0\n");
  });
  await all.run("Python, by both of its names", async () => {
    assert.equal((await sandbox.commands.run("python -c 'print(1)'; python3 -c 'print(2)'")).stdout, "1\n2\n");
  });
  await all.run("a program that is not there", async () => {
    await assert.rejects(
      sandbox.commands.run("no-such-program"),
      (error) => error instanceof CommandExitError && error.exitCode === 127,
    );
  });
  await all.run("standard error as it comes", async () => {
    const seen: string[] = [];
    await sandbox.commands.run("echo 1 >&2; echo 2 >&2", { onStderr: (data) => void seen.push(data) });
    assert.equal(seen.join(""), "1\n2\n");
  });
  await all.run("no standard input is an empty one", async () => {
    assert.equal((await sandbox.commands.run("cat; echo end")).stdout, "end\n");
  });
  await all.run("a command without a time limit", async () => {
    assert.equal((await sandbox.commands.run("sleep 0.1; echo done", { timeoutMs: 0 })).stdout, "done\n");
  });
  await all.run("killed by its handle", async () => {
    const started = await sandbox.commands.run("sleep 100", { background: true });
    assert.equal(await started.kill(), true);
    await assert.rejects(started.wait(), CommandExitError);
  });
  await all.run("a megabyte of standard input", async () => {
    const started = await sandbox.commands.run("wc -c", { background: true, stdin: true });
    await sandbox.commands.sendStdin(started.pid, "x".repeat(1_000_000));
    await sandbox.commands.closeStdin(started.pid);
    assert.equal((await started.wait()).stdout.trim(), "1000000");
  });
  await all.run("environment with quotes and other alphabets", async () => {
    const value = "a 'b' \"c\" $d ä ☺\nline";
    assert.equal((await sandbox.commands.run('printf %s "$V"', { envs: { V: value } })).stdout, value);
  });
  await all.run("output that is no text does not break the stream", async () => {
    const { stdout } = await sandbox.commands.run("printf 'a\\xff\\xfeb'");
    assert.ok(stdout.startsWith("a") && stdout.endsWith("b"));
  });
  await all.run("the processes of a pipeline and its status", async () => {
    assert.equal((await sandbox.commands.run("set -o pipefail; echo x | grep x | wc -l")).stdout.trim(), "1");
  });
  await all.run("a signal that a command sends to itself", async () => {
    await assert.rejects(sandbox.commands.run("kill -TERM $$"), CommandExitError);
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
      ["/tmp/many/a", "/tmp/many/deep/b", "/home/user/relative"],
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
    await assert.rejects(sandbox.files.read("/tmp/none"), (error) =>
      [FileNotFoundError, NotFoundError].some((kind) => kind !== undefined && error instanceof kind),
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
    await until(
      "a new file, and its content",
      () => seen.includes("create below/file") && seen.includes("write below/file"),
    );
    await sandbox.commands.run("mv /tmp/watched/below/file /tmp/watched/moved; rm /tmp/watched/moved");
    await until("the removal", () => seen.includes("remove moved"));
    await handle.stop();
    await assert.rejects(
      sandbox.files.watchDir("/tmp/none", () => {}),
      NotFoundError,
    );
  });
  await all.run("changes with what it is that has changed", async () => {
    await sandbox.files.makeDir("/tmp/entries");
    const seen = new Map<string, unknown>();
    const handle = await sandbox.files.watchDir(
      "/tmp/entries",
      ({ type, name, entry }) => void seen.set(`${type} ${name}`, entry && { path: entry.path, size: entry.size }),
      { includeEntry: true, allowNetworkMounts: true, timeoutMs: 0 },
    );
    await sandbox.files.write("/tmp/entries/file", "three");
    await until("the new file", () => seen.has("write file"));
    assert.deepEqual(seen.get("write file"), { path: "/tmp/entries/file", size: 5 });
    await sandbox.files.remove("/tmp/entries/file");
    await until("the removal", () => seen.has("remove file"));
    assert.equal(seen.get("remove file"), undefined);
    await handle.stop();
  });
  await all.run("signed links to read and to write", async () => {
    const put = await sandbox.uploadUrl("/tmp/signed", { useSignatureExpiration: 60 });
    const form = new FormData();
    form.append("file", new Blob(["by link"]), "signed");
    assert.equal((await fetch(put, { method: "POST", body: form })).status, 200);
    const get = await sandbox.downloadUrl("/tmp/signed");
    assert.equal(await (await fetch(get)).text(), "by link");
    assert.equal((await fetch(get.replace("signed", "bytes"))).status, 401);
    const late = await fetch(await sandbox.downloadUrl("/tmp/signed", { useSignatureExpiration: -10 }));
    assert.deepEqual([late.status, await late.json()], [401, { code: 401, message: "signature is already expired" }]);
    const field = new FormData();
    field.append("file", "without a name of its own");
    assert.equal((await fetch(put, { method: "POST", body: field })).status, 200);
    assert.equal(await sandbox.files.read("/tmp/signed"), "without a name of its own");
  });
  await all.run("a file is replaced by a shorter one", async () => {
    await sandbox.files.write("/tmp/replaced", "long long long");
    await sandbox.files.write("/tmp/replaced", "short");
    assert.equal(await sandbox.files.read("/tmp/replaced"), "short");
  });
  await all.run("five megabytes there and back", async () => {
    const bytes = Uint8Array.from({ length: 5 << 20 }, (_, i) => (i * 7) % 256);
    await sandbox.files.write("/tmp/large", new Blob([bytes]));
    assert.deepEqual(await sandbox.files.read("/tmp/large", { format: "bytes" }), bytes);
  });
  await all.run("a file for which there is no room", async () => {
    const small = "mkdir /tmp/small && mount -t tmpfs -o size=64k,mode=777 none /tmp/small";
    await sandbox.commands.run(small, { user: "root" });
    await assert.rejects(sandbox.files.write("/tmp/small/file", "x".repeat(1_000_000)), NotEnoughSpaceError);
  });
  await all.run("a user may not write where only root may", async () => {
    await sandbox.files.write("/etc/by-root", "x", { user: "root" });
    assert.equal((await sandbox.files.getInfo("/etc/by-root")).owner, "root");
    await sandbox.files.remove("/etc/by-root", { user: "root" });
  });
  await all.run("information of a directory", async () => {
    const { type, name, path } = await sandbox.files.getInfo("/home/user");
    assert.deepEqual([type, name, path], ["dir", "user", "/home/user"]);
  });
  await all.run("a directory exists, as a file does", async () => {
    assert.deepEqual(
      await Promise.all(["/home/user", "/etc/passwd", "/nowhere"].map((path) => sandbox.files.exists(path))),
      [true, true, false],
    );
  });
  await all.run("a directory is renamed with what is in it", async () => {
    await sandbox.files.write("/tmp/before/deep/file", "x");
    await sandbox.files.rename("/tmp/before", "/tmp/after");
    assert.equal(await sandbox.files.read("/tmp/after/deep/file"), "x");
  });
  await all.run("names with every kind of character", async () => {
    for (const name of ["with space", "quote'\"", "percent%20", "plus+&?#", "ünï☺", "-dash"]) {
      const path = `/tmp/names/${name}`;
      await sandbox.files.write(path, name);
      assert.equal(await sandbox.files.read(path), name);
    }
    assert.equal((await sandbox.files.list("/tmp/names")).length, 6);
  });
  await all.run("ten files at once", async () => {
    await Promise.all(Array.from({ length: 10 }, (_, i) => sandbox.files.write(`/tmp/ten/${i}`, String(i))));
    assert.equal((await sandbox.files.list("/tmp/ten")).length, 10);
  });
  await all.run("no files at all", async () => {
    assert.deepEqual(await sandbox.files.write([]), []);
  });
  await all.run("a part of a file, by its link", async () => {
    const link = await sandbox.downloadUrl("/tmp/replaced");
    const part = await fetch(link, { headers: { range: "bytes=1-3" } });
    assert.deepEqual([part.status, await part.text()], [206, "hor"]);
  });
  await all.run("nothing without the sandbox's token", async () => {
    const headers = { "e2b-sandbox-id": sandboxId };
    assert.equal((await fetch(`${url}/files?path=/etc/passwd`, { headers })).status, 401);
    const call = { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: "{}" };
    assert.equal((await fetch(`${url}/process.Process/List`, call)).status, 401);
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

  await all.run("a repository: made, committed to, branched", async () => {
    const { git } = sandbox;
    await git.init("/tmp/repository");
    await git.configureUser("Somebody", "somebody@example.com", { scope: "local", path: "/tmp/repository" });
    await sandbox.files.write("/tmp/repository/file", "1");
    assert.equal((await git.status("/tmp/repository")).isClean, false);
    await git.add("/tmp/repository");
    await git.commit("/tmp/repository", "the first");
    await git.createBranch("/tmp/repository", "other");
    assert.equal((await git.branches("/tmp/repository")).currentBranch, "other");
    assert.equal((await git.status("/tmp/repository")).isClean, true);
  });
  await all.run("a server in the sandbox, by its port's address", async () => {
    await sandbox.commands.run("cd /tmp/ten && python3 -m http.server 8123", { background: true });
    await sandbox.commands.run("until curl -sf localhost:8123/3 >/dev/null; do sleep 0.1; done");
    const headers = { "e2b-sandbox-id": sandboxId, "e2b-sandbox-port": "8123", "x-api-key": key };
    const page = await fetch(`${url}/3`, { headers });
    assert.deepEqual([page.status, await page.text()], [200, "3"]);
    assert.match(sandbox.getHost(8123), /^8123-sb-/);
  });
  await all.run("a port that nobody listens on is no missing sandbox", async () => {
    const headers = { "e2b-sandbox-id": sandboxId, "e2b-sandbox-port": "8999", "x-api-key": key };
    const page = await fetch(`${url}/`, { headers });
    assert.equal(page.status, 502);
    assert.doesNotMatch(await page.text(), /not found/);
  });
  await all.run("its network is changed and closed", async () => {
    await sandbox.updateNetwork({ allowOut: ["example.com"] });
    assert.deepEqual((await Sandbox.getFullInfo(sandboxId)).allowInternetAccess, true);
    await sandbox.updateNetwork({ allowInternetAccess: false } as never);
  });
  await all.run("a copy of it while it runs", async () => {
    await sandbox.files.write("/tmp/forked", "yes");
    const [copy] = await Sandbox.fork(sandboxId, { count: 1, timeoutMs: 60_000 });
    assert.ok(copy instanceof Sandbox);
    assert.equal(await copy.files.read("/tmp/forked"), "yes");
    await copy.kill();
  });
  await all.run("two sandboxes know nothing of each other", async () => {
    const other = await Sandbox.create({ timeoutMs: 60_000 });
    assert.equal(await other.files.exists("/tmp/forked"), false);
    assert.notEqual(
      (await other.commands.run("cat /etc/hostname; cat /proc/sys/kernel/random/boot_id")).stdout,
      (await sandbox.commands.run("cat /etc/hostname; cat /proc/sys/kernel/random/boot_id")).stdout,
    );
    await other.kill();
  });

  await all.run("paused with what runs in it, and resumed by connecting", async () => {
    await sandbox.commands.run("echo kept > /dev/shm/memory");
    assert.equal(await sandbox.pause(), true);
    const asleep = await Sandbox.list({ query: { state: ["paused"], metadata: { purpose: "tests" } } }).nextItems();
    assert.equal(asleep[0]?.sandboxId, sandboxId);
    assert.equal(await sandbox.isRunning(), false);
    sandbox = await Sandbox.connect(sandboxId, { timeoutMs: lifeMs });
    assert.equal((await sandbox.commands.run("cat /dev/shm/memory")).stdout, "kept\n");
  });
  await all.run("a command and a terminal over a pause: as they were started, and told from there on", async () => {
    const counting = "for i in $(seq 1000); do echo $i; sleep 0.2; done";
    const counts = await sandbox.commands.run(counting, { background: true, timeoutMs: 0, envs: { OWN: "yes" } });
    const terminal = await sandbox.pty.create({ cols: 80, rows: 24, timeoutMs: 0, onData: () => {} });
    while (!counts.stdout.includes("3\n")) await new Promise((wake) => setTimeout(wake, 50));
    const listed = async (): Promise<unknown[]> => {
      const all = await sandbox.commands.list();
      return all.sort((a, b) => a.pid - b.pid).map(({ pid, cmd, args, envs }) => ({ pid, cmd, args, envs }));
    };
    const before = await listed();
    assert.ok(JSON.stringify(before).includes(counting));
    await sandbox.pause();
    sandbox = await Sandbox.connect(sandboxId, { timeoutMs: lifeMs });
    assert.deepEqual(await listed(), before);
    const told: string[] = [];
    const again = await sandbox.commands.connect(counts.pid, { onStdout: (data) => void told.push(data) });
    while (told.length < 2) await new Promise((wake) => setTimeout(wake, 50));
    const [first = 0, second = 0] = told.join("").split("\n").map(Number);
    assert.ok(first > 3 && second === first + 1, `${first}, ${second}`);
    await again.kill();
    await sandbox.pty.resize(terminal.pid, { cols: 101, rows: 31 });
    await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode("stty size > /tmp/size; exit\n"));
    while (!(await sandbox.files.exists("/tmp/size"))) await new Promise((wake) => setTimeout(wake, 50));
    while ((await sandbox.files.read("/tmp/size")) === "") await new Promise((wake) => setTimeout(wake, 50));
    assert.equal(await sandbox.files.read("/tmp/size"), "31 101\n");
  });
  await all.run("a snapshot, and a sandbox from it", async () => {
    await sandbox.files.write("/home/user/state", "saved");
    const { snapshotId } = await sandbox.createSnapshot();
    const listed = await Sandbox.listSnapshots({ sandboxId }).nextItems();
    assert.ok(listed.some((each) => each.snapshotId === snapshotId));
    const named = async (name: string): Promise<unknown[]> =>
      JSON.parse(await asked("GET", `/snapshots?name=${encodeURIComponent(name)}`)) as unknown[];
    assert.deepEqual([(await named(snapshotId)).length, await named("no-such-snapshot")], [1, []]);
    const copy = await Sandbox.create(snapshotId, { timeoutMs: 60_000 });
    assert.equal(await copy.files.read("/home/user/state"), "saved");
    await copy.kill();
    assert.equal(await Sandbox.deleteSnapshot(snapshotId), true);
  });
  await all.run("a sandbox that is killed under a command: its client is told so", async () => {
    const own = await Sandbox.create({ timeoutMs: 60_000 });
    const started = await own.commands.run("sleep 60", { background: true });
    await own.kill();
    // Older clients pass on that the connection broke.
    await assert.rejects(started.wait(), /killed or reached its end of life|terminated/);
  });
  await all.run("volumes", async () => {
    const made = await Volume.create("own-files");
    assert.deepEqual([made.name, made.token.length > 0], ["own-files", true]);
    const { volumeId } = made;
    assert.deepEqual(await Volume.list(), [{ volumeId, name: "own-files" }]);
    const { name, token } = await Volume.getInfo(volumeId);
    assert.deepEqual([name, token], ["own-files", made.token]);
    assert.equal((await Volume.connect(volumeId)).name, "own-files");
    await assert.rejects(Volume.create("own-files"), /there is a volume own-files/);
    await assert.rejects(Volume.getInfo("vol-00000000"), /not found/);
    assert.deepEqual([await Volume.destroy(volumeId), await Volume.destroy(volumeId)], [true, false]);
    assert.deepEqual(await Volume.list(), []);
  });
  await all.refused("files of a volume outside of a sandbox", /files of a volume/, async () => {
    const volume = await Volume.create("looked-into");
    try {
      await volume.list("/");
    } finally {
      await Volume.destroy(volume.volumeId);
    }
  });
  await all.refused("secrets", /secrets/, () => e2b.Secret.create("s", "v"));
  await all.run("volumes in a sandbox", async () => {
    const volume = await Volume.create("kept-files");
    // The first machine with a place for one starts its system.
    const mounts = { volumeMounts: { "/mnt/kept": volume }, requestTimeoutMs: 600_000, timeoutMs: 300_000 };
    const first = await Sandbox.create(mounts);
    assert.deepEqual((await first.getInfo()).volumeMounts, [{ name: "kept-files", path: "/mnt/kept" }]);
    await first.files.write("/mnt/kept/word", "outlives it");
    await assert.rejects(Sandbox.create({ volumeMounts: { "/v": "kept-files" } }), /is with sandbox/);
    await assert.rejects(Volume.destroy(volume.volumeId), /is with sandbox/);
    await first.kill();
    const second = await Sandbox.create({ ...mounts, volumeMounts: { "/other/place": "kept-files" } });
    assert.equal(await second.files.read("/other/place/word"), "outlives it");
    await second.kill();
    assert.equal(await Volume.destroy(volume.volumeId), true);
    await assert.rejects(Sandbox.create({ volumeMounts: { "/v": "kept-files" } }), /no volume/);
  });
  await all.refused("the MCP gateway", /MCP/, () => Sandbox.create({ mcp: { duckduckgo: {} } } as never));
  const networkOf = async (rules: object): Promise<unknown> => {
    await asked("PUT", `/sandboxes/${sandboxId}/network`, rules);
    return (JSON.parse(await asked("GET", `/sandboxes/${sandboxId}`)) as { network: unknown }).network;
  };
  await all.run("ranges of addresses", async () => {
    const allowOut = ["192.0.2.0/24", "2001:db8::/32", "example.com"];
    assert.deepEqual(await networkOf({ allowOut, denyOut: ["0.0.0.0/0"] }), { allowOut, denyOut: ["0.0.0.0/0"] });
  });
  const create = (body: object) => asked("POST", "/sandboxes", { templateID: "base", timeout: 15, ...body });
  await all.run("single hosts refused", async () => {
    const denyOut = ["192.0.2.7", "198.51.100.0/24"];
    const { commands } = sandbox;
    assert.deepEqual(await networkOf({ allowOut: ["0.0.0.0/0"], denyOut }), { allowOut: ["0.0.0.0/0"], denyOut });
    // Refused at once; what is permitted, and nowhere, would be waited for.
    const refused = await commands
      .run("curl -sS -m 50 http://192.0.2.7/ 2>&1", { timeoutMs: 0 })
      .catch((error) => error);
    assert.match(String(refused.stdout), /refused|reset|denied|not allowed|403/i);
    assert.deepEqual(await networkOf({ allow_internet_access: false }), { allowOut: [], denyOut: ["0.0.0.0/0"] });
  });
  await all.refused("a proxy of one's own", /a proxy/, () => create({ network: { egressProxy: { address: "x:1" } } }));
  await all.refused("rules that change requests", /rules/, () =>
    create({ network: { rules: { "example.com": [{ transform: {} }] } } }),
  );
  await all.run("another host name for its programs", async () => {
    const masked = await Sandbox.create({
      timeoutMs: 60_000,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: what stands for the port
      network: { maskRequestHost: "inside.example:${PORT}", allowPublicTraffic: false },
    });
    await masked.files.write("/tmp/told.py", TELLS_HOST);
    await masked.commands.run("python3 /tmp/told.py", { background: true });
    await masked.commands.run("until curl -sf localhost:8080 >/dev/null; do sleep 0.1; done");
    const at = { "e2b-sandbox-id": masked.sandboxId, "e2b-sandbox-port": "8080" };
    const page = await fetch(url, { headers: { ...at, "e2b-traffic-access-token": masked.trafficAccessToken ?? "" } });
    assert.deepEqual([page.status, await page.text()], [200, "inside.example:8080"]);
    await masked.kill();
  });
  await all.refused("ports that speak HTTPS inside", /httpsPorts/, () => create({ network: { httpsPorts: [8443] } }));
  await all.refused("identity tokens", /identity tokens/, () => create({ iam: {} }));
  await all.run("its team is its owner", async () => {
    const [team] = JSON.parse(await asked("GET", "/teams")) as { teamID: string; isDefault: boolean }[];
    assert.deepEqual([team?.teamID, team?.isDefault], ["default", true]);
  });
  await all.run("a resume that leaves the saved memory out", async () => {
    const own = await Sandbox.create({ timeoutMs: 300_000 });
    const bootOf = async (): Promise<string> => await own.files.read("/proc/sys/kernel/random/boot_id");
    const boot = await bootOf();
    await own.commands.run("echo kept > ~/kept; sync; touch /dev/shm/in-memory");
    // One that runs goes on as it is.
    await asked("POST", `/sandboxes/${own.sandboxId}/connect`, { timeout: 60, memory: false });
    assert.equal(await bootOf(), boot);
    await asked("POST", `/sandboxes/${own.sandboxId}/pause`);
    await asked("POST", `/sandboxes/${own.sandboxId}/connect`, { timeout: 300, memory: false });
    assert.notEqual(await bootOf(), boot);
    assert.deepEqual([await own.files.read("kept"), await own.files.exists("/dev/shm/in-memory")], ["kept\n", false]);
    await own.kill();
  });
  await all.refused("a team's metrics", /teams/, () => asked("GET", "/teams/default/metrics"));
  await all.refused("keys made over the network", /keys/, () => asked("POST", "/api-keys", { name: "k" }));
  await all.refused("builds of version 1", /templates/, () => asked("POST", "/templates", { dockerfile: "FROM x" }));
  await all.refused("a template for everybody", /everybody/, () => asked("PATCH", "/templates/x", { public: true }));
  const buildFrom = async (fromImage: string, fromImageRegistry: object): Promise<string> => {
    const made = await asked("POST", "/v3/templates", { name: "from-private" });
    const { templateID, buildID } = JSON.parse(made) as { templateID: string; buildID: string };
    await asked("POST", `/v2/templates/${templateID}/builds/${buildID}`, { fromImage, fromImageRegistry });
    for (;;) {
      const told = await asked("GET", `/templates/${templateID}/builds/${buildID}/status`);
      const { status, reason } = JSON.parse(told) as { status: string; reason?: { message: string } };
      if (status === "error") return reason?.message ?? "";
      await new Promise((wake) => setTimeout(wake, 50));
    }
  };
  await all.run("credentials of a registry in a template", async () => {
    const host = process.env.E2B_TEST_REGISTRY ?? "";
    const shown = new Set<string | undefined>();
    // It has no image, and tells only those whom it knows.
    const registry = createServer(({ headers: { authorization } }, answer) => {
      shown.add(authorization);
      const known = ["u:p", "_json_key:{}"].some((pair) => authorization === `Basic ${btoa(pair)}`);
      answer.writeHead(known ? 404 : 401, { "www-authenticate": 'Basic realm="test"' }).end();
    });
    await once(registry.listen(Number(host.split(":")[1]), "127.0.0.1"), "listening");
    try {
      const from = `${host}/team/private:1`;
      assert.match(await buildFrom(from, { type: "registry", username: "u", password: "p" }), /there is no image/);
      assert.match(await buildFrom(from, { type: "gcp", serviceAccountJson: "{}" }), /there is no image/);
      const refused = await buildFrom(from, { type: "registry", username: "u", password: "secret-word" });
      assert.match(refused, /refuses access/);
      assert.ok(!refused.includes("secret-word"));
      assert.equal(shown.has(`Basic ${btoa("u:p")}`), true);
    } finally {
      registry.closeAllConnections();
      registry.close();
    }
  });
  await all.refused("an Amazon registry's credentials in a template", /Amazon/, () =>
    buildFrom("x.example/y", { type: "aws", awsAccessKeyId: "a", awsSecretAccessKey: "s", awsRegion: "r" }),
  );
  const inside = { "e2b-sandbox-id": sandboxId };
  await all.run("files composed of others", async () => {
    const { files } = sandbox;
    const compose = (body: object) => asked("POST", "/files/compose", body, { ...inside, "e2b-sandbox-port": "49983" });
    const parts = ["first ", "x".repeat(300_000), " last"];
    await files.write("/tmp/parts/0", parts[0] ?? "");
    await files.write("/tmp/parts/1", parts[1] ?? "");
    await files.write("/tmp/parts/2", parts[2] ?? "");
    const source_paths = ["/tmp/parts/0", "/tmp/parts/1", "/tmp/parts/2"];
    const missing = compose({ source_paths: [...source_paths, "/tmp/parts/none"], destination: "whole/one" });
    await assert.rejects(missing, /404/);
    await assert.rejects(compose({ source_paths: ["/tmp"], destination: "whole/one" }), /400 .*regular/);
    assert.equal((await files.list("/tmp/parts")).length, 3);
    const told = JSON.parse(await compose({ source_paths, destination: "whole/one" }));
    assert.deepEqual(told, { name: "one", type: "file", path: "/home/user/whole/one" });
    assert.equal(await files.read("whole/one"), parts.join(""));
    assert.equal((await files.getInfo("whole/one")).owner, "user");
    assert.deepEqual(await files.list("/tmp/parts"), []);
    // To one of them, which stays.
    await files.write("/tmp/parts/more", "!");
    await compose({ source_paths: ["whole/one", "/tmp/parts/more"], destination: "whole/one" });
    assert.equal(await files.read("whole/one"), `${parts.join("")}!`);
  });
  await all.run("metadata of files", async () => {
    const { files, commands } = sandbox;
    const metadata = { author: "somebody", "for-what": "a test" };
    const places = ["/tmp/said/one", "/tmp/said/two"];
    const written = await files.writeFiles(
      places.map((path) => ({ path, data: "x" })),
      { metadata },
    );
    assert.deepEqual(
      written.map((each) => each.metadata),
      [metadata, metadata],
    );
    assert.deepEqual((await files.getInfo("/tmp/said/one")).metadata, metadata);
    assert.deepEqual((await files.rename("/tmp/said/one", "/tmp/said/moved")).metadata, metadata);
    // What programs of the sandbox say of a file is the same thing.
    await commands.run("python3 -c \"import os; os.setxattr('/tmp/said/two', 'user.e2b.by', b'a program')\"");
    const listed = await files.list("/tmp/said");
    assert.deepEqual(
      listed.map((each) => each.metadata),
      [metadata, { ...metadata, by: "a program" }],
    );
    await files.write("/tmp/said/two", "anew");
    assert.equal((await files.getInfo("/tmp/said/two")).metadata, undefined);
    await assert.rejects(files.write("/dev/shm/said", "x", { metadata }), /no metadata are kept/);
    const over = { long: "x".repeat(4096) };
    await assert.rejects(files.write("/tmp/said/over", "x", { metadata: over }), /bytes of keys and values/);
    assert.equal(await files.exists("/tmp/said/over"), false);
  });
  await all.refused("code in R and in Java", /does not have|not know/, async () => {
    const at = { ...inside, "e2b-sandbox-port": "49999" };
    const java = await asked("POST", "/execute", { code: "1", language: "java" }, at).catch((error) => String(error));
    assert.match(String(java), /501/);
    await asked("POST", "/execute", { code: "1", language: "r" }, at);
  });
  await all.run("its log", async () => {
    const { logs } = JSON.parse(await asked("GET", `/sandboxes/${sandboxId}/logs`)) as { logs: unknown[] };
    assert.ok(Array.isArray(logs));
  });
  await all.run("listed by the time of its start", async () => {
    const { startedAt } = JSON.parse(await asked("GET", `/sandboxes/${sandboxId}`)) as { startedAt: string };
    const listed = async (from: string): Promise<boolean> =>
      (await asked("GET", `/v2/sandboxes?startedAfter=${encodeURIComponent(from)}`)).includes(sandboxId);
    assert.equal(await listed(startedAt), true);
    assert.equal(await listed(new Date(Date.parse(startedAt) + 1).toISOString()), false);
    await assert.rejects(listed("no time"), /400 .*startedAfter/);
  });
  await all.run("asked for twice with one key", async () => {
    const once = { "idempotency-key": `the-same-${sandboxId}` };
    const body = { templateID: "base", timeout: 60 };
    const [one, two] = [await asked("POST", "/sandboxes", body, once), await asked("POST", "/sandboxes", body, once)];
    const id = (text: string): string => (JSON.parse(text) as { sandboxID: string }).sandboxID;
    assert.equal(id(one), id(two));
    await Sandbox.kill(id(one));
  });
  await all.run("killed, and gone", async () => {
    // Older clients do not tell whether there was one.
    assert.notEqual(await sandbox.kill(), false);
    assert.equal(await sandbox.isRunning(), false);
    await assert.rejects(sandbox.commands.run("true"), SandboxNotFoundError ?? NotFoundError);
    assert.notEqual(await sandbox.kill(), true);
  });
}

async function ofCodeAndOthers(all: Scenarios, { e2b, interpreter }: Sdk): Promise<void> {
  const { Sandbox, SandboxNotFoundError, TimeoutError } = e2b;
  const Interpreter = interpreter.Sandbox;
  let made: string | undefined;
  /** Another client of one sandbox each time. */
  const notebook = async () => {
    made ??= (await Sandbox.create({ timeoutMs: 600_000, metadata: { purpose: "code" } })).sandboxId;
    return await Interpreter.connect(made);
  };
  await all.run("the code interpreter: state, output, results, errors", async () => {
    const it = await notebook();
    await it.runCode("x = 41");
    const seen: string[] = [];
    const done = await it.runCode("print('out')\nx + 1", { onStdout: ({ line }) => void seen.push(line) });
    assert.deepEqual([done.text, done.logs.stdout, seen, done.executionCount], ["42", ["out\n"], ["out\n"], 2]);
    const wrong = await it.runCode("1 / 0");
    assert.deepEqual([wrong.error?.name, wrong.error?.value], ["ZeroDivisionError", "division by zero"]);
    const [rich] = (await it.runCode("class H:\n  def _repr_html_(self): return '<b>'\nH()")).results;
    assert.equal(rich?.html, "<b>");
    const started = await it.commands.list();
    assert.ok(!JSON.stringify(started).includes("interpreter"), "its processes are no commands of the client's");
  });
  await all.run("contexts of the code interpreter", async () => {
    const it = await notebook();
    const context = await it.createCodeContext({ cwd: "/tmp" });
    assert.equal((await it.runCode("import os; os.getcwd()", { context })).text, "/tmp");
    assert.equal((await it.runCode("x", { context })).error?.name, "NameError");
    assert.ok((await it.listCodeContexts()).some(({ id }) => id === context.id));
    await it.restartCodeContext(context);
    await it.removeCodeContext(context);
    await assert.rejects(it.runCode("1", { context }));
  });
  await all.run("code interpreter: everything that is displayed, in its order", async () => {
    const done = await (await notebook()).runCode(
      "class M:\n  def _repr_markdown_(self): return '*m*'\nclass L:\n  def _repr_latex_(self): return '$l$'\nclass S:\n  def _repr_svg_(self): return '<svg/>'\nclass J:\n  def _repr_json_(self): return {'a': [1]}\ndisplay(M()); display(L()); display(S())\nJ()",
    );
    assert.deepEqual(
      done.results.map(({ markdown, latex, svg, json }) => markdown ?? latex ?? svg ?? json),
      ["*m*", "$l$", "<svg/>", { a: [1] }],
    );
    assert.deepEqual(
      done.results.map(({ isMainResult }) => isMainResult === true),
      [false, false, false, true],
    );
  });
  await all.run("code interpreter: pictures", async () => {
    const done = await (await notebook()).runCode("class P:\n  def _repr_png_(self): return b'\\x89PNG'\nP()");
    assert.equal(done.results[0]?.png, "iVBORw==");
  });
  await all.run("code interpreter: await at the top", async () => {
    assert.equal(
      (await (await notebook()).runCode("import asyncio\nawait asyncio.sleep(0.01)\n'slept'")).text,
      "slept",
    );
  });
  await all.run("code interpreter: environment of one call", async () => {
    const it = await notebook();
    assert.equal((await it.runCode("import os; os.environ['E']", { envs: { E: "v" } })).text, "v");
    assert.deepEqual((await it.runCode("os.environ.get('E')")).results, []);
  });
  await all.run("code interpreter: a line for the shell", async () => {
    assert.equal((await (await notebook()).runCode("!echo by the shell")).logs.stdout.join(""), "by the shell\n");
  });
  await all.run("code interpreter: a syntax error, and what follows works", async () => {
    const it = await notebook();
    assert.equal((await it.runCode("if True print(1)")).error?.name, "SyntaxError");
    assert.equal((await it.runCode("1")).text, "1");
  });
  await all.run("code interpreter: standard input is refused", async () => {
    assert.equal((await (await notebook()).runCode("input()")).error?.name, "StdinNotImplementedError");
  });
  await all.run("code interpreter: code that takes too long is stopped, and its context stays", async () => {
    const it = await notebook();
    await it.runCode("stays = 1");
    await assert.rejects(
      it.runCode("while True: pass", { timeoutMs: 1_500 }),
      interpreter.TimeoutError ?? TimeoutError,
    );
    assert.equal((await it.runCode("stays")).text, "1");
  });
  await all.run("code interpreter: callbacks for results and errors", async () => {
    const seen: string[] = [];
    await (await notebook()).runCode("display(1)\nraise ValueError('x')", {
      onResult: ({ text }) => void seen.push(String(text)),
      onError: ({ name }) => void seen.push(name),
    });
    assert.deepEqual(seen, ["1", "ValueError"]);
  });
  await all.run("code interpreter: a large result", async () => {
    assert.equal((await (await notebook()).runCode("'x' * 1_000_000")).text?.length, 1_000_000);
  });
  await all.run("code interpreter: a context keeps its own names and its directory", async () => {
    const it = await notebook();
    const context = await it.createCodeContext({ language: "bash", cwd: "/tmp" });
    await it.runCode("here=1", { context });
    assert.equal((await it.runCode("echo $here $PWD", { context })).logs.stdout.join(""), "1 /tmp\n");
    await it.removeCodeContext(context);
  });
  // This client tells the status and not the words.
  await all.refused("code in a language that the image lacks", /501/, () =>
    notebook().then((it) => it.runCode("1", { language: "javascript" })),
  );
  await all.run("bash in the code interpreter", async () => {
    const it = await notebook();
    await it.runCode("kept=yes", { language: "bash" });
    assert.deepEqual((await it.runCode("echo $kept", { language: "bash" })).logs.stdout, ["yes\n"]);
  });
  if (made !== undefined) await Sandbox.kill(made);
  await all.run("a sandbox whose time is over is gone", async () => {
    const other = await Sandbox.create({ timeoutMs: 3_000 });
    const limit = Date.now() + 60_000;
    while (await other.isRunning()) {
      assert.ok(Date.now() < limit);
      await new Promise((wake) => setTimeout(wake, 200));
    }
    await assert.rejects(other.commands.run("true"), SandboxNotFoundError);
  });
  await all.run("an image by its name", async () => {
    const small = await Sandbox.create("stacyvm/busybox", { timeoutMs: 60_000 });
    assert.equal((await small.commands.run("echo in sh")).stdout, "in sh\n");
    await small.kill();
  });
  await all.run("paused at the end of its time, and brought back by its use", async () => {
    const own = await Sandbox.create({ timeoutMs: 60_000, lifecycle: { onTimeout: "pause", autoResume: true } });
    await own.commands.run("echo kept > /dev/shm/memory");
    await own.setTimeout(1_000);
    const limit = Date.now() + 60_000;
    while ((await Sandbox.getInfo(own.sandboxId)).state === "running") {
      assert.ok(Date.now() < limit);
      await new Promise((wake) => setTimeout(wake, 300));
    }
    assert.equal(await own.files.read("/dev/shm/memory"), "kept\n");
    await own.kill();
  });
  await all.run("paused without memory: its files are there again, and its system has started anew", async () => {
    const boot = "cat /proc/sys/kernel/random/boot_id";
    const own = await Sandbox.create({ timeoutMs: 300_000, envs: { OF_ALL: "yes" } });
    const first = (await own.commands.run(`${boot}; echo written > kept; echo gone > /dev/shm/memory`)).stdout;
    const running = await own.commands.run("sleep 1000", { background: true, timeoutMs: 0 });
    assert.notEqual(await own.pause({ keepMemory: false }), false);
    assert.equal((await Sandbox.getInfo(own.sandboxId)).state, "paused");
    await assert.rejects(running.wait());
    const again = await Sandbox.connect(own.sandboxId, { timeoutMs: 300_000 });
    const { stdout } = await again.commands.run(`${boot}; cat kept; ls /dev/shm; echo $OF_ALL; hostname`);
    const [second, ...rest] = stdout.split("\n");
    assert.notEqual(`${second}\n`, first);
    assert.deepEqual(rest, ["written", "yes", own.sandboxId, ""]);
    assert.doesNotMatch((await again.commands.list()).map(({ args }) => args.join(" ")).join("\n"), /sleep 1000/);
    // It can be paused once more, both ways.
    await again.files.write("kept", "again");
    await again.pause();
    assert.equal(await (await Sandbox.connect(own.sandboxId)).files.read("kept"), "again");
    await own.kill();
  });
  await all.run("paused without memory at the end of its time", async () => {
    const onTimeout = { action: "pause", keepMemory: false } as const;
    const own = await Sandbox.create({ timeoutMs: 60_000, lifecycle: { onTimeout } });
    await own.commands.run("echo kept > file; echo gone > /dev/shm/memory");
    await own.setTimeout(1_000);
    const limit = Date.now() + 60_000;
    while ((await Sandbox.getInfo(own.sandboxId)).state === "running") {
      assert.ok(Date.now() < limit);
      await new Promise((wake) => setTimeout(wake, 300));
    }
    const again = await Sandbox.connect(own.sandboxId, { timeoutMs: 60_000 });
    assert.equal((await again.commands.run("cat file; ls /dev/shm")).stdout, "kept\n");
    await own.kill();
  });
}

async function ofTemplates(all: Scenarios, { e2b }: Sdk, { url, key }: Place): Promise<void> {
  const { BuildError, Sandbox, Template, waitForURL } = e2b;
  await all.run(
    "a template is built from steps and files, with its log as it comes, and a sandbox starts from it",
    async () => {
      const dir = await mkdtemp(join(tmpdir(), "e2b-template-"));
      await mkdir(join(dir, "app"));
      await writeFile(join(dir, "app", "page.html"), "served\n");
      await symlink("app/page.html", join(dir, "link"));
      const template = Template({ fileContextPath: dir })
        .fromImage("e2bdev/base")
        .setEnvs({ BUILT: "in the image" })
        .copy("app", "site", { mode: 0o750 })
        .copy("link", "site/link")
        .runCmd("echo made by $(id -un) > made")
        .runCmd(`touch /by-root # ${Date.now()}, so that it is done and not remembered`, { user: "root" })
        .setWorkdir("/app/deep")
        .runCmd("echo by user > out.txt && touch ../beside")
        .setWorkdir("/home/user")
        .setStartCmd("cd site && python3 -m http.server 8000", waitForURL("http://localhost:8000"));
      const logs: string[] = [];
      const built = await Template.build(template, "my-site", {
        cpuCount: 1,
        memoryMB: 256,
        tags: ["v1"],
        onBuildLogs: ({ message }) => void logs.push(message),
      });
      assert.ok(
        logs.some((line) => line.includes("RUN touch /by-root")),
        logs.join("\n"),
      );
      assert.equal(await Template.exists("my-site"), true);
      const made = await Sandbox.create("my-site", { timeoutMs: 120_000 });
      const look = await made.commands.run(
        "cat made; readlink site/link; stat -c '%U %a' site/page.html; pwd; echo $BUILT; ls /by-root; curl -s localhost:8000/page.html",
      );
      assert.equal(look.stdout, "made by user\napp/page.html\nuser 750\n/home/user\nin the image\n/by-root\nserved\n");
      await made.kill();
      const tags = async (): Promise<string[]> => (await Template.getTags("my-site")).map(({ tag }) => tag).sort();
      assert.deepEqual(await tags(), ["default", "v1"]);
      await Template.assignTags("my-site:v1", ["stable"]);
      await Template.removeTags("my-site", ["v1"]);
      assert.deepEqual(await tags(), ["default", "stable"]);
      assert.equal((await Template.getBuildStatus(built)).status, "ready");
      await rm(dir, { recursive: true });
    },
  );
  await all.run(
    "who and where a template's last steps named is who and where commands run, in what is built from it too",
    async () => {
      const options = { cpuCount: 1, memoryMB: 256 };
      const first = Template().fromImage("e2bdev/base").setUser("root").setWorkdir("/app").runCmd("echo built > here");
      await Template.build(first, "rooted", options);
      await Template.build(
        Template().fromTemplate("rooted").runCmd("pwd > second; id -un >> second"),
        "rooted-more",
        options,
      );
      const made = await Sandbox.create("rooted-more", { timeoutMs: 120_000 });
      const { stdout } = await made.commands.run("cat here second; pwd; id -un");
      assert.equal(stdout, "built\n/app\nroot\n/app\nroot\n");
      assert.equal((await made.commands.run("id -un; pwd", { user: "user", cwd: "~" })).stdout, "user\n/home/user\n");
      await made.kill();
    },
  );
  await all.run("variables in the steps of a template", async () => {
    // biome-ignore-start lint/suspicious/noTemplateCurlyInString: variables of the template's
    const lines = [
      "FROM e2bdev/base",
      "ARG VER=1.2",
      "ENV A=v${VER} PATH=/opt/venv/bin:$PATH",
      "WORKDIR /srv/$VER",
      "RUN echo built $A > made",
      "USER user",
      "ENV MINE=$HOME/z",
    ];
    const template = Template()
      .fromDockerfile(lines.join("\n"))
      .setEnvs({ Q: "${A}x", RAW: '{"a": "\\d", "b": $(id)}', ELSE: "${NONE:-else}" });
    await Template.build(template, "with-variables:v1", { cpuCount: 1, memoryMB: 256 });
    // biome-ignore-end lint/suspicious/noTemplateCurlyInString: variables of the template's
    assert.equal(await Template.exists("with-variables"), true, "whatever its tags are");
    const made = await Sandbox.create("with-variables:v1", { timeoutMs: 120_000 });
    // What a login shell was given; its profile sets PATH anew.
    const look = await made.commands.run(
      "pwd; cat made; tr '\\0' '\\n' </proc/$$/environ | grep -E '^(VER|A|PATH|MINE|Q|RAW|ELSE)=' | sort",
    );
    assert.deepEqual(look.stdout.trimEnd().split("\n"), [
      ...["/srv/1.2", "built v1.2", "A=v1.2", "ELSE=else", "MINE=/home/user/z"],
      "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ...["Q=v1.2x", 'RAW={"a": "\\d", "b": $(id)}', "VER=1.2"],
    ]);
    await made.kill();
  });
  await all.run("a step that fails, with its words and its place", async () => {
    const template = Template().fromTemplate("my-site").runCmd("echo before; no-such-program");
    await assert.rejects(Template.build(template, "poor", { cpuCount: 1, memoryMB: 256 }), (error) => {
      assert.ok(error instanceof BuildError);
      assert.match(error.message, /no-such-program: command not found/);
      return true;
    });
    assert.equal(await Template.exists("poor"), false);
  });
  await all.run(
    "a template that is being built: its machine is no sandbox of the client's, and is deleted with it",
    async () => {
      const headers = { "x-api-key": key };
      const machines = async (): Promise<string[]> => {
        const answer = await fetch(`${url}/api/v1/sandboxes`, { headers });
        const all = (await answer.json()) as { id: string; state: string; metadata: Record<string, string> }[];
        return all
          .filter(({ state, metadata }) => state === "running" && metadata.builds === "unwanted")
          .map(({ id }) => id);
      };
      const template = Template().fromImage("e2bdev/base").runCmd(`sleep 3000 # ${Date.now()}`);
      const build = await Template.buildInBackground(template, "unwanted", { cpuCount: 1, memoryMB: 256 });
      const limit = Date.now() + 240_000;
      while ((await machines()).length === 0) {
        assert.ok(Date.now() < limit, (await Template.getBuildStatus(build)).status);
        await new Promise((wake) => setTimeout(wake, 200));
      }
      const [machine] = await machines();
      for (const pages = Sandbox.list(); pages.hasNext; ) {
        for (const { sandboxId } of await pages.nextItems()) assert.notEqual(sandboxId, machine);
      }
      const deleted = await fetch(`${url}/templates/${build.templateId}`, { method: "DELETE", headers });
      assert.deepEqual([deleted.status, await machines()], [204, []]);
      await assert.rejects(Template.getBuildStatus(build), /not found/);
      assert.equal(await Template.exists("unwanted"), false);
    },
  );
  await all.run("a template is deleted, and the image that was made for it", async () => {
    const headers = { "x-api-key": key };
    const found = await fetch(`${url}/templates/aliases/my-site`, { headers });
    const { templateID } = (await found.json()) as { templateID: string };
    const images = async (): Promise<string> => await (await fetch(`${url}/api/v1/images`, { headers })).text();
    assert.ok((await images()).includes(`stacyvm/template/${templateID}:`));
    assert.equal((await fetch(`${url}/templates/my-site`, { method: "DELETE", headers })).status, 204);
    assert.equal(await Template.exists("my-site"), false);
    const limit = Date.now() + 120_000; // a machine that is just being saved holds it
    while ((await images()).includes(`stacyvm/template/${templateID}:`)) {
      assert.ok(Date.now() < limit, await images());
      await new Promise((wake) => setTimeout(wake, 200));
    }
    await assert.rejects(Sandbox.create("my-site"), /not found/);
  });
}
