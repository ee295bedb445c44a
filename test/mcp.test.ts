/** `stacyvm mcp` as an agent's program uses it: the official client, over standard input and output, with real sandboxes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { Cli } from "./cli-support.ts";

describe("sandboxes as a language model's tools", { timeout: 300_000 }, () => {
  let cli: Cli;
  let client: Client;
  let transport: StdioClientTransport;
  before(async () => {
    cli = await Cli.create();
    client = new Client({ name: "test", version: "1" });
    transport = new StdioClientTransport({
      command: process.execPath,
      args: [
        join(packageRoot, "src/cli/main.ts"),
        "mcp",
        "--image",
        "stacyvm/busybox",
        "-m",
        "128",
        "--allow",
        "example.com",
      ],
      env: cli.env,
      cwd: cli.data,
    });
    await client.connect(transport);
  });
  after(() => cli[Symbol.asyncDispose]());

  const call = async (
    name: string,
    input: Record<string, unknown> = {},
  ): Promise<{ text: string; failed: boolean }> => {
    const result = await client.callTool({ name, arguments: input }, { timeout: 60_000 });
    const [first] = result.content as { type: string; text: string }[];
    return { text: first?.text ?? "", failed: result.isError === true };
  };
  const good = async (name: string, input: Record<string, unknown> = {}): Promise<string> => {
    const { text, failed } = await call(name, input);
    assert.ok(!failed, text);
    return text;
  };

  test("what there is, each tool with its arguments explained", async () => {
    const { tools } = await client.listTools();
    assert.deepEqual(tools.map(({ name }) => name).sort(), [
      "create_sandbox",
      "destroy_sandbox",
      "fork_sandbox",
      "list_files",
      "list_sandboxes",
      "read_file",
      "run_code",
      "run_command",
      "write_file",
    ]);
    for (const { description, inputSchema } of tools) {
      assert.ok((description ?? "").length > 20);
      assert.equal(inputSchema.type, "object");
    }
    assert.equal(await good("list_sandboxes"), "none yet");
  });

  test("code with state, its value and its figures; what an image lacks is told", async () => {
    const made = /sb-\w+/.exec(await good("create_sandbox", { image: "stacyvm/python" }))?.[0];
    assert.match(await good("run_code", { code: "x = 20", sandbox: made }), /^done \(sandbox/);
    const code =
      "print('said')\nclass P:\n  def _repr_png_(self): return b'png'\n  def __repr__(self): return str(x * 2)\nP()";
    const { content } = await client.callTool({ name: "run_code", arguments: { code, sandbox: made } });
    const [text, image] = content as { type: string; text?: string; data?: string; mimeType?: string }[];
    assert.match(text?.text ?? "", /^done .*stdout:\nsaid\n\n\nvalue:\n40$/s);
    assert.deepEqual(image, { type: "image", data: "cG5n", mimeType: "image/png" });
    assert.match(
      await good("run_code", { code: "1 / 0", sandbox: made }),
      /^failed: ZeroDivisionError.*error:\n.*division by zero/s,
    );
    const lacks = await call("run_code", { code: "1", language: "javascript", sandbox: made });
    assert.ok(lacks.failed && /has no node/.test(lacks.text), lacks.text);
    await good("destroy_sandbox", { sandbox: made });
  });

  test("a sandbox is made at the first use, and its state stays for the next call", async () => {
    assert.match(await good("write_file", { path: "work/note", content: "größer\n" }), /^wrote 7 characters/);
    assert.match(
      await good("run_command", { command: "cat work/note; echo told >&2; exit 3" }),
      /^exit code 3 \(sandbox sb-\w+\)\n\nstdout:\ngrößer\n\n\nstderr:\ntold/,
    );
    assert.equal(await good("read_file", { path: "work/note" }), "größer\n");
    assert.equal(await good("list_files", { path: "work" }), "note  9 bytes");
    assert.match(await good("run_command", { command: "cat", stdin: "through" }), /stdout:\nthrough$/);
    assert.match(await good("list_sandboxes"), /^sb-\w+ {2}running {2}stacyvm\/busybox {2}network: example\.com$/);
  });

  test("long output is shortened in its middle", async () => {
    const text = await good("run_command", { command: "seq 20000" });
    assert.match(text, /stdout:\n1\n2\n[\s\S]*characters left out[\s\S]*\n20000\n$/);
    assert.ok(text.length < 21_000);
  });

  test("failures are for the model to read: a missing file, a foreign sandbox, a command that takes too long, wrong arguments", async () => {
    const missing = await call("read_file", { path: "/nowhere" });
    assert.ok(missing.failed);
    assert.match(missing.text, /nowhere/);
    const foreign = await call("run_command", { command: "true", sandbox: "sb-00000000" });
    assert.ok(foreign.failed);
    assert.match(foreign.text, /has no sandbox sb-00000000; it has sb-/);
    const slow = await good("run_command", { command: "echo begun; sleep 60", timeout_seconds: 0.5 });
    assert.match(slow, /^ended after 0\.5 s \(sandbox sb-\w+\)\n\nstdout:\nbegun/);
    const wrong = await call("run_command", {}).catch((error: Error) => ({ text: error.message, failed: true }));
    assert.ok(wrong.failed);
    assert.match(wrong.text, /command/);
    assert.match(await good("run_command", { command: "echo still there" }), /still there/);
  });

  test("copies go their own ways; one that is destroyed is gone", async () => {
    const [, copy = ""] = /: (sb-\w+)$/.exec(await good("fork_sandbox")) ?? [];
    await good("write_file", { path: "work/note", content: "changed", sandbox: copy });
    assert.equal(await good("read_file", { path: "work/note" }), "größer\n");
    assert.equal(await good("read_file", { path: "work/note", sandbox: copy }), "changed");
    assert.equal(await good("destroy_sandbox", { sandbox: copy }), `${copy} is gone`);
    assert.match((await call("run_command", { command: "true", sandbox: copy })).text, /has no sandbox/);
    const [, other = ""] = /^(sb-\w+): stacyvm\/busybox/.exec(await good("create_sandbox")) ?? [];
    assert.match(await good("run_command", { command: "ls work 2>&1", sandbox: other }), /No such file/);
  });

  test("when the connection ends, nothing of it is left", async () => {
    await client.close();
    while ((await processesIn(cli.data)).length > 0) await new Promise((wake) => setTimeout(wake, 50));
    assert.deepEqual(await cli.json("ls"), []);
  });
});
