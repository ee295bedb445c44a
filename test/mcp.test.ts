/** `stacyvm mcp` as an agent's program uses it: the official client, over standard input and output, with real sandboxes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { lockDataDir } from "../src/cli/data-dir.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { Cli } from "./cli-support.ts";

interface Content {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
  uri?: string;
}

describe("sandboxes as a language model's tools", { timeout: 600_000 }, () => {
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
    // On a busy machine the server inside takes its time.
    await client.connect(transport, { timeout: 300_000 });
  });
  after(() => cli[Symbol.asyncDispose]());

  const callAll = async (
    name: string,
    input: Record<string, unknown> = {},
  ): Promise<{ content: Content[]; failed: boolean }> => {
    const result = await client.callTool({ name, arguments: input }, { timeout: 120_000 });
    return { content: result.content as Content[], failed: result.isError === true };
  };
  const call = async (
    name: string,
    input: Record<string, unknown> = {},
  ): Promise<{ text: string; failed: boolean }> => {
    const { content, failed } = await callAll(name, input);
    return { text: content[0]?.text ?? "", failed };
  };
  /** As a model does it: what is not ready yet is asked for again, or looked for. */
  const good = async (name: string, input: Record<string, unknown> = {}): Promise<string> => {
    const ids = async (): Promise<string[]> => (await call("list_sandboxes")).text.match(/^sb-\w+/gm) ?? [];
    const before = name === "create_sandbox" ? await ids() : [];
    for (;;) {
      const { text, failed } = await call(name, input);
      if (!failed) return text;
      assert.match(text, /is not ready yet: .+\nnext: /);
      while (name === "create_sandbox") {
        const made = (await ids()).find((id) => !before.includes(id));
        if (made !== undefined) return `${made}: ${input.image ?? "stacyvm/busybox"}`;
        await delay(500);
      }
    }
  };

  test("what there is: each tool and argument explained, unknown arguments refused, and what a host may expect of each", async () => {
    const { tools } = await client.listTools();
    const kinds = Object.groupBy(tools, ({ annotations: a = {} }) =>
      a.readOnlyHint ? "looks" : !a.destructiveHint ? "adds" : a.idempotentHint ? "replaces" : "runs",
    );
    assert.deepEqual(
      Object.fromEntries(Object.entries(kinds).map(([kind, list]) => [kind, list.map(({ name }) => name).sort()])),
      {
        looks: ["list_files", "list_processes", "list_sandboxes", "read_file", "read_process"],
        adds: ["checkpoint_sandbox", "create_sandbox", "fork_sandbox", "open_port"],
        replaces: ["destroy_sandbox", "restore_sandbox", "stop_process", "write_file"],
        runs: ["run_code", "run_command", "start_process", "write_process"],
      },
    );
    for (const { name, title, description, inputSchema, annotations } of tools) {
      assert.ok((title ?? "").length > 5 && (description ?? "").length > 20, name);
      assert.equal(inputSchema.additionalProperties, false, name);
      const runs = name.startsWith("run_") || name === "start_process" || name === "write_process";
      assert.equal(annotations?.openWorldHint, runs, name);
    }
    const instructions = client.getInstructions() ?? "";
    assert.match(instructions, /can reach these hosts and no others: example\.com\. Only the user can change that/);
    assert.match(instructions, /image is stacyvm\/busybox: busybox alone/);
    assert.equal(await good("list_sandboxes"), "none yet");
    const unknown = await call("run_command", { command: "true", sandboxId: "sb-00000000" });
    assert.ok(unknown.failed);
    assert.match(unknown.text, /sandboxId/);
    assert.equal(await good("list_sandboxes"), "none yet");
  });

  test("code with state, its value and its figures; what an image lacks is told", async () => {
    const made = /sb-\w+/.exec(await good("create_sandbox", { image: "stacyvm/python" }))?.[0];
    assert.match(await good("run_code", { code: "x = 20", sandbox: made }), /^done \(sandbox/);
    const code =
      "print('said')\nclass P:\n  def _repr_png_(self): return b'png'\n  def __repr__(self): return str(x * 2)\nP()";
    const { content } = await callAll("run_code", { code, sandbox: made });
    assert.match(content[0]?.text ?? "", /^done .*stdout:\nsaid\n\n\nvalue:\n40$/s);
    assert.deepEqual(content[1], { type: "image", data: "cG5n", mimeType: "image/png" });
    assert.match(
      await good("run_code", { code: "1 / 0", sandbox: made }),
      /^failed: ZeroDivisionError.*error:\n.*division by zero/s,
    );
    const away = "import urllib.request\nurllib.request.urlopen('http://db.example/', timeout=20)";
    assert.match(
      await good("run_code", { code: away, sandbox: made }),
      /^failed: .*hint:\nThis sandbox can reach only example\.com\. Only the user can change that/s,
    );
    const lacks = await call("run_code", { code: "1", language: "javascript", sandbox: made });
    assert.ok(lacks.failed && /has no node/.test(lacks.text), lacks.text);
    await good("destroy_sandbox", { sandbox: made });
  });

  test("a sandbox is made at the first use, and its state stays for the next call", async () => {
    assert.match(await good("write_file", { path: "work/note", content: "größer\n" }), /^wrote 9 bytes/);
    assert.match(
      await good("run_command", { command: "cat work/note; echo told >&2; exit 3" }),
      /^exit code 3 \(sandbox sb-\w+\)\n\nstdout:\ngrößer\n\n\nstderr:\ntold/,
    );
    assert.equal(await good("read_file", { path: "work/note" }), "größer\n");
    assert.equal(await good("list_files", { path: "work" }), "note  9 bytes");
    assert.match(await good("run_command", { command: "cat", stdin: "through" }), /stdout:\nthrough$/);
    assert.match(await good("list_sandboxes"), /^sb-\w+ {2}running {2}stacyvm\/busybox {2}network: example\.com$/m);
  });

  test("files of any kind: pictures are seen, other bytes have an address, and parts of long texts can be read", async () => {
    const png = Buffer.from("89504e470d0a1a0a0000", "hex").toString("base64");
    await good("write_file", { path: "work/p", content: png, encoding: "base64" });
    const { content: picture } = await callAll("read_file", { path: "work/p" });
    assert.deepEqual(picture, [{ type: "image", data: png, mimeType: "image/png" }]);

    const bytes = Buffer.from([0, 1, 254, 255]).toString("base64");
    await good("write_file", { path: "work/größe 1.zip", content: bytes, encoding: "base64" });
    const [told, link] = (await callAll("read_file", { path: "work/größe 1.zip" })).content;
    assert.match(told?.text ?? "", /is no text: application\/zip, 4 bytes/);
    const { uri = "" } = link ?? {};
    assert.match(uri, /^stacyvm:\/\/sb-\w{8}\/\S+\/work\/gr%C3%B6%C3%9Fe%201\.zip$/);
    assert.deepEqual((await client.readResource({ uri })).contents, [
      { uri, mimeType: "application/zip", blob: bytes },
    ]);
    const note = uri.replace(/work.*/, "work/note");
    assert.deepEqual((await client.readResource({ uri: note })).contents, [
      { uri: note, mimeType: "text/plain", text: "größer\n" },
    ]);
    await assert.rejects(client.readResource({ uri: uri.replace(/sb-\w+/, "sb-00000000") }), /has no sandbox/);

    await good("write_file", { path: "here.txt", content: "0123456789" });
    const { resources } = await client.listResources();
    const here = resources.find(({ name }) => name === "here.txt");
    assert.equal(here?.size, 10);
    assert.match(here?.uri ?? "", /\/here\.txt$/);
    assert.equal(await good("read_file", { path: "here.txt", offset: 3, length: 4 }), "3456");
  });

  test("whoever asks for news gets them while a command runs, and cancels it when it is enough", async () => {
    const news: string[] = [];
    const heard = Promise.withResolvers<void>();
    const running = client.callTool(
      { name: "run_command", arguments: { command: "echo begun; until [ -e /go ]; do sleep 0.1; done" } },
      {
        timeout: 120_000,
        onprogress: ({ message = "" }) => {
          news.push(message);
          if (message.startsWith("begun")) heard.resolve();
        },
      },
    );
    await Promise.race([heard.promise, running]);
    await good("write_file", { path: "/go", content: "" });
    const { content } = await running;
    assert.match((content as Content[])[0]?.text ?? "", /^exit code 0/);
    assert.match(news.at(-1) ?? "", /^begun \(\d+ s\)$/);

    const stop = new AbortController();
    const cancelled = client.callTool(
      { name: "run_command", arguments: { command: "echo $$ > /pid; exec sleep 1000" } },
      { signal: stop.signal, timeout: 120_000 },
    );
    cancelled.catch(() => {});
    await good("run_command", { command: "until [ -s /pid ]; do sleep 0.1; done" });
    stop.abort();
    await assert.rejects(cancelled);
    await good("run_command", { command: "while [ -e /proc/$(cat /pid) ]; do sleep 0.1; done" });
  });

  test("processes go on between calls: their output, input and end; a port that one opens is reached from here", async () => {
    const serve = "echo up; exec httpd -f -p 8000 -h /www";
    await good("write_file", { path: "/www/index.html", content: "from inside" });
    const closed = await call("open_port", { port: 8000 });
    assert.ok(closed.failed);
    assert.match(closed.text, /nothing listens on port 8000 .*no port is open\nnext: start the server first/s);
    const [, server = ""] =
      /^process (\d+) runs; port 8000 is open \(sandbox sb-\w+\)\n\nstdout:\nup\n$/.exec(
        await good("start_process", { command: serve, port: 8000 }),
      ) ?? [];
    assert.notEqual(server, "");
    const [url = ""] = /http:\S+/.exec(await good("open_port", { port: 8000 })) ?? [];
    assert.equal(await (await fetch(url)).text(), "from inside");
    assert.match(await good("open_port", { port: 8000 }), new RegExp(url)); // the same again

    const [, echo = ""] =
      /^process (\d+) runs/.exec(
        await good("start_process", { command: 'read line; echo "got $line"; cat; exit 7', wait_seconds: 0 }),
      ) ?? [];
    assert.match(await good("write_process", { process: echo, input: "one\n" }), /runs .*stdout:\ngot one\n$/s);
    assert.match(
      await good("write_process", { process: echo, input: "two", close: true, wait_seconds: 50 }),
      /has ended: exit code 7 .*stdout:\ngot one\ntwo$/s,
    );
    const ended = await call("write_process", { process: echo, input: "x" });
    assert.ok(ended.failed && /has ended\nnext: start it again/.test(ended.text), ended.text);

    const list = await good("list_processes");
    assert.match(list, new RegExp(`^${server}  runs  .*httpd`, "m"));
    assert.match(list, new RegExp(`^${echo}  exit code 7  `, "m"));
    assert.match(list, /^open ports: 8000$/m);
    assert.match(await good("stop_process", { process: server }), /has ended/);
    assert.match(await good("stop_process", { process: server }), /has ended/);
    assert.match(await good("read_process", { process: server }), /has ended/);
    const unknown = await call("read_process", { process: "999999" });
    assert.match(unknown.text, /has no process 999999; it has \d+.*\nnext: see list_processes/s);
  });

  test("long output is shortened in its middle", async () => {
    const text = await good("run_command", { command: "seq 20000" });
    assert.match(text, /stdout:\n1\n2\n[\s\S]*characters left out[\s\S]*\n20000\n$/);
    assert.ok(text.length < 21_000);
  });

  test("failures are for the model to read: a missing file, a foreign sandbox, a command that takes too long, wrong arguments", async () => {
    const missing = await call("read_file", { path: "/nowhere" });
    assert.ok(missing.failed);
    assert.match(missing.text, /nowhere.*\nnext: /s);
    const foreign = await call("run_command", { command: "true", sandbox: "sb-00000000" });
    assert.ok(foreign.failed);
    assert.match(foreign.text, /has no sandbox sb-00000000; it has sb-/);
    const slow = await good("run_command", { command: "echo begun; sleep 60", timeout_seconds: 0.5 });
    assert.match(slow, /^ended after 0\.5 s, before it was done; .*start_process \(sandbox sb-\w+\)\n\nstdout:\nbegun/);
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

  test("a saved state is come back to, in place or in a further sandbox", async () => {
    const [, saved = ""] = /^checkpoint (\S+) of sb-/.exec(await good("checkpoint_sandbox", { name: "before" })) ?? [];
    await good("run_command", { command: "rm work/note" });
    const [, other = ""] = /^(sb-\w+): /.exec(await good("create_sandbox", { checkpoint: saved })) ?? [];
    assert.equal(await good("read_file", { path: "work/note", sandbox: other }), "größer\n");
    const wrong = await call("restore_sandbox", { checkpoint: saved, sandbox: other });
    assert.ok(wrong.failed && /\nnext: restore that one/.test(wrong.text), wrong.text);
    await good("restore_sandbox", { checkpoint: saved });
    assert.equal(await good("read_file", { path: "work/note" }), "größer\n");
    assert.match(await good("list_sandboxes"), new RegExp(`^checkpoint ${saved} of sb-\\w+: before$`, "m"));
    assert.match((await call("restore_sandbox", { checkpoint: "cp-0" })).text, /has no checkpoint cp-0; it has /);
  });

  test("one that somebody else has ended is told, and the next call gets a new one", async () => {
    const [, id = ""] = /\(sandbox (sb-\w+)\)/.exec(await good("run_command", { command: "true" })) ?? [];
    await cli.out("rm", id);
    const gone = await call("run_command", { command: "true" });
    assert.ok(gone.failed);
    assert.match(gone.text, /has ended \(.+\)\nnext: call again without `sandbox`/);
    assert.doesNotMatch(await good("run_command", { command: "true" }), new RegExp(id));
  });

  test("when the connection ends, nothing of it is left", async () => {
    await client.close();
    while ((await processesIn(cli.data)).length > 0) await new Promise((wake) => setTimeout(wake, 50));
    assert.deepEqual(await cli.json("ls"), []);
    assert.deepEqual(await cli.json("checkpoint", "ls"), []);
  });
});

/** As an agent that has read its configuration: JSON-RPC by lines, in the protocol's version of its own. */
async function conversation(
  { command, args }: { command: string; args: string[] },
  protocolVersion: string,
  env: Record<string, string>,
  cwd: string,
) {
  const child = spawn(command, args, { env, cwd, stdio: ["pipe", "pipe", "inherit"] });
  const closed = new Promise((resolve) => child.once("close", resolve));
  const say = (message: object): void => {
    child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  };
  const clientInfo = { name: "an agent", version: "1" };
  say({ id: 1, method: "initialize", params: { protocolVersion, capabilities: {}, clientInfo } });
  // biome-ignore lint/suspicious/noExplicitAny: answers of all kinds
  const answers: any[] = [];
  for await (const line of createInterface(child.stdout)) {
    const message = JSON.parse(line);
    if (message.id === undefined) continue;
    answers.push(message.result);
    if (message.id === 1) {
      say({ method: "notifications/initialized" });
      say({ id: 2, method: "tools/list" });
    } else if (message.id === 2)
      say({ id: 3, method: "tools/call", params: { name: "list_sandboxes", arguments: {} } });
    else child.stdin.end();
  }
  await closed;
  return answers;
}

describe("the configurations of published agents, as docs/mcp.md has them", { timeout: 300_000 }, () => {
  test("each starts the command, and is served in the protocol's version that it speaks", async () => {
    const text = await readFile(join(packageRoot, "docs/mcp.md"), "utf8");
    const json = [...text.matchAll(/^```json\n(.*?)^```/gms)].map(([, block = ""]) => JSON.parse(block));
    const [, toml = ""] = /^```toml\n(.*?)^```/ms.exec(text) ?? [];
    const field = (name: string): string => new RegExp(`^${name} = (.*)$`, "m").exec(toml)?.[1] ?? "";
    const configured = {
      claude: json.find((block) => "mcpServers" in block).mcpServers.stacyvm,
      vscode: json.find((block) => "servers" in block).servers.stacyvm,
      codex: { command: JSON.parse(field("command")), args: JSON.parse(field("args")) },
    };
    await using cli = await Cli.create();
    const env = { ...cli.env, PATH: `${join(packageRoot, "bin")}:${cli.env.PATH}` };
    // No server can be had: what the agents ask first is answered all the same.
    await using lock = await lockDataDir(dataPaths(cli.data));
    assert.ok(lock);
    for (const [agent, version] of [
      ["claude", "2025-11-25"],
      ["vscode", "2025-06-18"],
      ["codex", "2025-03-26"],
    ] as const) {
      const [hello, list, called] = await conversation(configured[agent], version, env, cli.data);
      assert.equal(hello.protocolVersion, version, agent);
      assert.match(hello.instructions, /isolated Linux machines/);
      assert.equal(list.tools.length, 17, agent);
      assert.deepEqual(called.content, [{ type: "text", text: "none yet" }]);
    }
  });
});
