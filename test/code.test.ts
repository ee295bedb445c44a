/** The code interpreter with real machines: through our own SDK, kept over a restart, copied, and saved warm in a template. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client, type Sandbox } from "../sdk/src/index.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { ownEnvironment } from "./python-support.ts";
import { Server } from "./server-support.ts";

const KEY = "k".repeat(32);
const PYTHON = `
import asyncio, os, sys
from stacyvm_sdk import AsyncClient, Client, NotFoundError

with Client(os.environ["STACYVM_URL"], api_key=os.environ["STACYVM_API_KEY"]) as client:
    box = client.get(sys.argv[1])
    assert box.run_code("x").text == "41"
    done = box.run_code("print('out')\\nimport sys; print('err', file=sys.stderr)\\n1 / 0", env={"A": "b"})
    assert (done.stdout, done.stderr, done.error.name, done.text) == ("out\\n", "err\\n", "ZeroDivisionError", None), done
    own = box.contexts.create("python", workdir="/tmp")
    assert box.run_code("import os; os.getcwd()", context=own).text == "'/tmp'"
    assert own.id in [each.id for each in box.contexts.list()]
    box.contexts.restart(own)
    box.contexts.remove(own)
    try:
        box.run_code("1", context=own)
    except NotFoundError:
        pass
    else:
        raise AssertionError("it is still there")

async def main():
    async with AsyncClient(os.environ["STACYVM_URL"], api_key=os.environ["STACYVM_API_KEY"]) as client:
        box = await client.get(sys.argv[1])
        kinds = [type(event).__name__ async for event in box.stream_code("print('a')\\nx")]
        assert kinds == ["Output", "CodeResult", "CodeEnd"], kinds
        assert (await box.run_code("echo $kept", language="bash")).stdout == "yes\\n"

asyncio.run(main())
print("done")
`;

describe("code with state", { timeout: 900_000 }, () => {
  let server: Server;
  let client: Client;
  let sandbox: Sandbox;
  const connect = (): Client => new Client({ url: server.url, apiKey: KEY });
  before(async () => {
    server = await Server.create(`auth: {api_key: ${KEY}}\nproviders: {default: qemu}\n`);
    client = connect();
    await client.transport.call("POST /templates", {
      body: {
        name: "warm",
        image: "stacyvm/base",
        startCommand: "python3 -m http.server --directory /etc 8000",
        readyCommand: "curl -sf http://127.0.0.1:8000/hostname",
        contexts: [{ language: "python", code: "import os, random, json\nready = 6" }],
      },
    });
    await client.transport.call("POST /snapshots", { body: { template: "warm" }, timeoutMs: 600_000 });
    sandbox = await client.create({ template: "warm", env: { GIVEN: "by the spawn" }, ttl: "20m" });
  });
  after(() => server?.[Symbol.asyncDispose]());

  test("a template's context and start command run in what was restored", async () => {
    assert.equal(sandbox.info.boot?.path, "restored");
    assert.deepEqual(
      (await sandbox.contexts.list()).map(({ id }) => id),
      ["python"],
    );
    const first = await sandbox.runCode("(ready * 7, os.environ['GIVEN'], os.getcwd(), os.environ['HOME'])");
    assert.equal(first.text, "(42, 'by the spawn', '/home/user', '/home/user')");
    assert.equal(first.executionCount, 1);
    assert.match(await (await sandbox.port(8000).fetch("/hostname")).text(), /\w/);
  });

  test("state, output, errors, figures' forms, environment of one call", async () => {
    await sandbox.runCode("x = 41");
    const seen: string[] = [];
    for await (const event of sandbox.streamCode("print('out')\nimport sys; print('err', file=sys.stderr)\nx + 1")) {
      seen.push(event.type === "stdout" || event.type === "stderr" ? event.text : event.type);
    }
    assert.deepEqual(seen, ["out\n", "err\n", "result", "end"]);
    const failed = await sandbox.runCode("1 / 0");
    assert.deepEqual([failed.error?.name, failed.error?.value], ["ZeroDivisionError", "division by zero"]);
    const rich = await sandbox.runCode(
      "class H:\n  def _repr_html_(self): return '<b>'\n  def _repr_mimebundle_(self, **_): return {'a/b': 1}\nH()",
    );
    assert.deepEqual(
      [rich.results[0]?.html, rich.results[0]?.main, rich.results[0]?.other],
      ["<b>", true, { "a/b": 1 }],
    );
    assert.equal((await sandbox.runCode("os.environ['E']", { env: { E: "v" } })).text, "'v'");
    assert.deepEqual((await sandbox.runCode("os.environ.get('E')")).results, []);
  });

  test("its time and its caller's going away interrupt it, and the context stays", async () => {
    await assert.rejects(sandbox.runCode("import time\ntime.sleep(60)", { timeout: 1_000 }), { code: "TIMEOUT" });
    for await (const event of sandbox.streamCode("print('begun', flush=True)\nwhile True: pass")) {
      if (event.type === "stdout") break;
    }
    assert.equal((await sandbox.runCode("x")).text, "41");
    const history = await sandbox.history(10);
    assert.ok(
      history.some(({ command, outcome }) => command.startsWith("python: import time") && outcome === "timeout"),
    );
  });

  test("contexts apart from each other, and other languages", async () => {
    const other = await sandbox.contexts.create({ workdir: "/tmp" });
    assert.equal((await sandbox.runCode("import os; os.getcwd()", { context: other })).text, "'/tmp'");
    assert.equal((await sandbox.runCode("x", { context: other })).error?.name, "NameError");
    await sandbox.contexts.restart(other);
    await sandbox.contexts.remove(other);
    await assert.rejects(sandbox.runCode("1", { context: other }), { code: "NOT_FOUND" });
    await sandbox.runCode("kept=yes; cd /etc", { language: "bash" });
    assert.equal(
      (await sandbox.runCode("echo $kept $PWD $GIVEN", { language: "bash" })).stdout,
      "yes /etc by the spawn\n",
    );
    await assert.rejects(sandbox.runCode("1", { language: "javascript" }), /has no node/);
    await assert.rejects(sandbox.runCode("1", { language: "cobol" }), { hint: /use one of python/ });
  });

  test("a copy goes on with what was computed, and the source does not see it", async () => {
    const [copy] = await sandbox.fork();
    assert.ok(copy !== undefined);
    assert.equal((await copy.runCode("x += 100; x")).text, "141");
    assert.equal((await sandbox.runCode("x")).text, "41");
    await copy.destroy();
  });

  test("copies of one saved context have random numbers of their own", async () => {
    const others = await Promise.all([1, 2].map(() => client.create({ template: "warm" })));
    const drawn = await Promise.all(others.map(async (each) => (await each.runCode("random.random()")).text));
    assert.notEqual(drawn[0], drawn[1]);
    await Promise.all(others.map((each) => each.destroy()));
  });

  test("the Python package, synchronous and asynchronous, sees the same contexts", async () => {
    const python = await ownEnvironment();
    const out = await runTool(python, ["-c", PYTHON, sandbox.id], {
      env: {
        ...process.env,
        PYTHONPATH: join(packageRoot, "python/src"),
        STACYVM_URL: server.url,
        STACYVM_API_KEY: KEY,
      },
      timeoutMs: 60_000,
    });
    assert.equal(out.toString("utf8").trim(), "done");
  });

  test("contexts outlive the server", async () => {
    await server.stop("SIGKILL");
    await server.start();
    client = connect();
    const again = await client.get(sandbox.id);
    assert.equal((await again.runCode("x")).text, "41");
    assert.equal((await again.runCode("echo $kept", { language: "bash" })).stdout, "yes\n");
  });

  test("a start command that fails is told, with what it said", async () => {
    const body = { name: "poor", image: "stacyvm/base", startCommand: "echo no such thing; exit 3" };
    await client.transport.call("POST /templates", { body });
    await assert.rejects(client.create({ template: "poor" }), /start command .* ended with 3: no such thing/);
  });
});
