import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client, NotFoundError, Sandbox, TimeoutError } from "../sdk/src/index.ts";
import { Server } from "./server-support.ts";

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe("the SDK with a real server and real sandboxes", { timeout: 120_000 }, () => {
  let server: Server;
  let client: Client;
  let sandbox: Sandbox;
  before(async () => {
    server = await Server.create();
    client = new Client({ url: server.url });
    sandbox = await Sandbox.create({ image: "stacyvm/busybox", memoryMb: 256, metadata: { for_test: "yes" } }, client);
  });
  after(() => server[Symbol.asyncDispose]());

  test("create, connect, list", async () => {
    assert.equal(sandbox.state, "running");
    assert.ok((sandbox.info.boot?.totalMs ?? 0) > 0);
    assert.equal((await Sandbox.connect(sandbox.id, client)).info.metadata.for_test, "yes");
    assert.ok((await Sandbox.list(client)).some(({ id }) => id === sandbox.id));
    await assert.rejects(client.get("sb-00000000"), NotFoundError);
  });

  test("exec: shell, arguments, stdin, time limit, streamed", async () => {
    assert.deepEqual((await sandbox.exec("echo out; echo err >&2; exit 3")).exitCode, 3);
    assert.equal((await sandbox.exec(["echo", "a b", "$HOME"])).stdout, "a b $HOME\n");
    assert.equal((await sandbox.exec("wc -c", { stdin: new Uint8Array([0, 255, 10]) })).stdout.trim(), "3");
    await assert.rejects(sandbox.exec("sleep 30", { timeout: 300 }), TimeoutError);
    const events = await Array.fromAsync(sandbox.stream("echo one; echo two >&2; exit 4"));
    assert.ok(events.some((event) => event.type === "stderr" && event.text === "two\n"));
    assert.equal(events.at(-1)?.type === "exit" && events.at(-1), events.at(-1));
    assert.deepEqual(events.at(-1), {
      type: "exit",
      exitCode: 4,
      reason: events.at(-1)?.type === "exit" ? "exited" : "",
    });
  });

  test("run: files in, output, exit code, files out, gone", async () => {
    const before = (await client.list()).length;
    const options = { image: "stacyvm/busybox", memoryMb: 256, env: { WORD: "hidden" } };
    const done = await client.run("cat /in/a /in/b | wc -c; mkdir /out; echo $WORD >/out/word; echo err >&2; exit 3", {
      ...options,
      files: { "/in/a": "é", "/in/b": new Uint8Array([0, 255]) },
      collect: ["/out/word", "/out/none"],
    });
    assert.deepEqual([done.exitCode, done.stdout, done.stderr], [3, "4\n", "err\n"]);
    assert.deepEqual([Object.keys(done.files), done.missing], [["/out/word"], ["/out/none"]]);
    assert.equal(text(done.files["/out/word"] as Uint8Array), "hidden\n");
    assert.ok((done.boot?.totalMs ?? 0) > 0);
    await assert.rejects(client.run("sleep 30", { ...options, timeout: 300 }), TimeoutError);
    await assert.rejects(client.run(["/no/such"], options), { code: "BAD_REQUEST" });
    await assert.rejects(client.run("exit 1", { ...options, check: true }), { name: "ExecError" });
    await assert.rejects(client.get(done.sandboxId), NotFoundError);
    while ((await client.list()).length > before) await new Promise((wake) => setTimeout(wake, 50));
  });

  test("spawn: stdin, signals, exit; a terminal with its size", async () => {
    const cat = await sandbox.spawn(["cat"]);
    await cat.write("to and fro");
    cat.closeStdin();
    let echoed = "";
    for await (const { data } of cat) echoed += text(data);
    assert.equal(echoed, "to and fro");
    assert.equal((await cat.wait()).exitCode, 0);

    const sleeping = await sandbox.spawn("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done");
    let said = "";
    for await (const piece of sleeping.text()) {
      said += piece;
      if (said.includes("caught") || !said.includes("ready")) continue;
      // More than the guest takes of what its program does not read; the signal overtakes it.
      for (let i = 0; i < 14; i++) await sleeping.write(new Uint8Array(65_536));
      sleeping.kill("SIGINT");
    }
    assert.match(said, /caught/);
    assert.equal((await sleeping.wait()).exitCode, 9);

    const trap = "trap 'echo asked; exit 8' QUIT; sleep 60 & wait";
    const late = await sandbox.spawn(trap, { timeout: 500, stopSignal: "SIGQUIT" });
    assert.equal((await Array.fromAsync(late.text())).join(""), "asked\n");
    assert.deepEqual(await late.wait(), { exitCode: 8, reason: "timeout" });

    const shell = await sandbox.shell({ pty: { rows: 33, cols: 99 } });
    await shell.write("stty size; exit 5\n");
    assert.match((await Array.fromAsync(shell.text())).join(""), /33 99/);
    assert.equal((await shell.wait()).exitCode, 5);
    await assert.rejects(sandbox.spawn(["/no/such/program"]));
  });

  test("a started command goes on by itself and can be attached to", async () => {
    const id = await sandbox.start("echo begun; sleep 60");
    assert.ok((await sandbox.processes()).some((process) => process.id === id && process.running));
    const attached = await sandbox.attach(id);
    for await (const piece of attached.text()) {
      assert.match(piece, /begun/);
      break;
    }
    await sandbox.kill(id, "SIGKILL");
    assert.equal((await attached.wait()).exitCode, 137);
  });

  test("files: text, bytes, streams, directories, changes", async () => {
    const { files } = sandbox;
    await files.write("/workspace/d/a.txt", "text\u00e9");
    assert.equal(await files.read("/workspace/d/a.txt"), "text\u00e9");
    const bytes = crypto.getRandomValues(new Uint8Array(50_000));
    await files.write("/workspace/d/b.bin", new Blob([bytes]).stream(), { mode: 0o600 });
    assert.deepEqual(await files.readBytes("/workspace/d/b.bin"), bytes);
    assert.deepEqual(await files.readBytes("/workspace/d/b.bin", { offset: 10, length: 5 }), bytes.slice(10, 15));
    assert.equal((await files.stat("/workspace/d/b.bin")).mode, "600");
    const tar = await files.readArchive("/workspace/d");
    await files.writeArchive("/workspace/copy", tar);
    const names = (await files.list("/workspace/copy", { recursive: true })).map(({ name }) => name);
    assert.ok(names.includes("a.txt") && names.includes("b.bin"), names.join());
    // Names are bytes (docs/guest.md): a directory, its copies and what is in them.
    const odd = "/workspace/caf\udce9";
    await files.write(`${odd}/x`, "odd");
    await files.writeArchive(`${odd}\udcff`, await files.readArchive(odd));
    await files.copy(`${odd}\udcff`, `${odd}2`, { recursive: true });
    await files.move(`${odd}2`, `${odd}3`);
    assert.equal(await files.read(`${odd}3/x`), "odd");
    assert.deepEqual(
      (await files.list(`${odd}3`)).map(({ path }) => path),
      [`${odd}3/x`],
    );
    await files.remove(`${odd}3`, { recursive: true });
    assert.equal(await files.exists(`${odd}3`), false);

    const abort = new AbortController();
    const changes = files.watch("/workspace/d", { signal: abort.signal });
    const next = (async () => {
      // Beside the file itself, the one under which it is written first.
      for await (const { path, to } of changes) if (path.endsWith("/new") || to?.endsWith("/new")) return true;
      return false;
    })();
    // The watch is there once it was answered; writing until it shows needs no guess about when that is.
    let seen = false;
    const written = (async () => {
      for (let i = 0; !seen; i++) await files.write("/workspace/d/new", String(i));
    })();
    assert.equal(await next, true);
    seen = true;
    await written;
    abort.abort();
    await files.remove("/workspace/d", { recursive: true });
    assert.equal(await files.exists("/workspace/d"), false);
  });

  test("ports: HTTP through the server, and a raw connection", async () => {
    await sandbox.files.write("/tmp/www/index.html", "served from inside");
    await sandbox.exec("httpd -p 8080 -h /tmp/www");
    const port = sandbox.port(8080);
    assert.equal(await (await port.fetch("/index.html")).text(), "served from inside");
    using tunnel = await port.connect();
    await tunnel.write(new TextEncoder().encode("GET /index.html HTTP/1.0\r\n\r\n"));
    let answer = "";
    for await (const part of tunnel) answer += text(part);
    assert.match(answer, /served from inside$/);
  });

  test("pause, fork, checkpoint, events", async () => {
    const abort = new AbortController();
    const events = client.events({ types: ["sandbox.*"], sandboxId: sandbox.id, after: "evt-0", signal: abort.signal });
    assert.equal((await events.next()).value?.type, "sandbox.created");
    await sandbox.pause();
    await sandbox.resume();
    const types: string[] = [];
    for await (const event of events) {
      types.push(event.type);
      if (event.type === "sandbox.resumed") break;
    }
    assert.ok(types.includes("sandbox.paused"), types.join());
    abort.abort();
    await sandbox.files.write("/workspace/kept", "here");
    const [copy] = await sandbox.fork();
    assert.equal(await copy?.files.read("/workspace/kept"), "here");
    await copy?.destroy();
    const { id } = await sandbox.checkpoint("mark");
    {
      await using later = await client.create({ checkpoint: id });
      assert.equal(await later.files.read("/workspace/kept"), "here");
    }
    await client.checkpoints.remove(id);
  });

  test("templates, images, snapshots, numbers; `await using` leaves nothing", async () => {
    await client.templates.create({ name: "small", image: "stacyvm/busybox", memoryMb: 256, vcpus: 1 });
    {
      await using made = await client.templates.spawn("small");
      assert.equal(made.info.template, "small");
    }
    await client.templates.remove("small");
    assert.ok((await client.images.pull("stacyvm/busybox", { onProgress() {} })).digest.length > 10);
    assert.ok((await client.images.list()).length > 0);
    assert.ok(Array.isArray(await client.snapshots.list()));
    assert.ok((await client.providers())[0]?.healthy);
    assert.equal((await client.health()).status, "ok");
    assert.equal(typeof (await client.pool()).enabled, "boolean");
    await sandbox.destroy();
    assert.deepEqual(
      (await client.list()).map(({ id }) => id),
      [],
    );
  });
});
