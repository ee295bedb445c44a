import assert from "node:assert/strict";
import { test } from "node:test";
import { ConflictError, ExecError, LimitError, NotFoundError } from "./errors.ts";
import { MockServer } from "./mock.ts";

test("the mock runs commands as told, keeps files, and counts what is left", async () => {
  const mock = new MockServer({
    exec(command, { files, stdin }) {
      if (command === "make") {
        files.set("/workspace/out", new TextEncoder().encode("built"));
        return { stdout: "ok\n" };
      }
      if (command === "cat") return { stdout: stdin };
      return { stderr: "no such command\n", exitCode: 127 };
    },
  });
  const client = mock.client();
  const ran = await client.run("make", { collect: ["/workspace/out", "/none"] });
  assert.deepEqual(
    [ran.stdout, new TextDecoder().decode(ran.files["/workspace/out"]), ran.missing],
    ["ok\n", "built", ["/none"]],
  );
  {
    await using sandbox = await client.create({ image: "stacyvm/python", metadata: { some_key: "kept" } });
    assert.deepEqual(sandbox.info.metadata, { some_key: "kept" });
    assert.equal((await sandbox.exec("make")).stdout, "ok\n");
    assert.equal(await sandbox.files.read("/workspace/out"), "built");
    assert.equal((await sandbox.exec(["nope", "x"])).exitCode, 127);
    await assert.rejects(sandbox.exec("nope", { check: true }), ExecError);
    await sandbox.files.write("/workspace/in", "text");
    assert.deepEqual(
      (await sandbox.files.list("/workspace")).map(({ name }) => name),
      ["in", "out"],
    );
    await assert.rejects(sandbox.files.read("/none"), NotFoundError);
    assert.equal(await sandbox.files.exists("/none"), false);

    const process = await sandbox.spawn("cat");
    await process.write("through stdin");
    process.closeStdin();
    assert.equal((await Array.fromAsync(process.text())).join(""), "through stdin");
    assert.equal((await process.wait()).exitCode, 0);

    const events = await Array.fromAsync(sandbox.stream("make"));
    assert.deepEqual(events.at(-1), { type: "exit", exitCode: 0, reason: "exited" });

    const [copy] = await sandbox.fork();
    assert.equal(await copy?.files.read("/workspace/in"), "text");
    await copy?.destroy();
    const saved = await sandbox.checkpoint("before");
    await using later = await client.create({ checkpoint: saved.id });
    assert.equal(await later.files.read("/workspace/in"), "text");

    await sandbox.allow(["pkg.example"]);
    assert.deepEqual(sandbox.info.allowedHosts, ["pkg.example"]);
    assert.deepEqual((await sandbox.network()).allowedHosts, ["pkg.example"]);

    await sandbox.pause();
    assert.equal(sandbox.state, "paused");
    await assert.rejects(sandbox.exec("make"), ConflictError);
    assert.deepEqual(mock.sandboxes.length, 2);
  }
  assert.deepEqual(mock.sandboxes, []);
});

test("errors can be produced on purpose", async () => {
  const mock = new MockServer({
    fail: (method, path) =>
      method === "POST" && path === "/sandboxes"
        ? { status: 429, code: "RESOURCE_LIMIT", message: "full", remedy: "destroy some" }
        : undefined,
  });
  await assert.rejects(mock.client().create(), (error) => {
    assert.ok(error instanceof LimitError);
    assert.equal(error.code, "RESOURCE_LIMIT");
    assert.equal(error.hint, "destroy some");
    return true;
  });
});
