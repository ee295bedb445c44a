/** The examples as their README says to run them, against a real server. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { ended, type Ran, Terminal } from "./cli-support.ts";
import { Server } from "./server-support.ts";

describe("examples", { timeout: 300_000 }, () => {
  let server: Server;
  before(async () => {
    server = await Server.create();
  });
  after(() => server[Symbol.asyncDispose]());

  const path = (name: string): string => join(packageRoot, "examples", name);
  const run = (name: string, args: string[] = [], env: Record<string, string> = {}): Promise<Ran> =>
    ended(
      spawn(process.execPath, [path(name), ...args], {
        env: { ...process.env, STACYVM_URL: server.url, ...env },
        cwd: server.root,
      }),
    );
  const nothingLeft = async (): Promise<void> => assert.deepEqual((await server.call("GET", "/sandboxes")).body, []);

  test("agent loop: the model's program runs, its output goes back to the model", async () => {
    const conversation: unknown[][] = [];
    const model = createServer(async (request, response) => {
      const { messages } = JSON.parse((await Array.fromAsync(request)).join("")) as { messages: { content: string }[] };
      conversation.push(messages);
      const said = messages.at(-1)?.content ?? "";
      const call = { id: "1", function: { name: "python", arguments: JSON.stringify({ code: "print(6 * 7)" }) } };
      const message =
        conversation.length === 1
          ? { role: "assistant", content: null, tool_calls: [call] }
          : { role: "assistant", content: `it said: ${said}` };
      response.end(JSON.stringify({ choices: [{ message }] }));
    });
    await new Promise<void>((resolve) => model.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${(model.address() as AddressInfo).port}/v1`;
      const { code, stdout, stderr } = await run("agent-loop.ts", ["what is 6 * 7?"], { MODEL_URL: url });
      assert.deepEqual([code, stdout], [0, "it said: exit code 0\n42\n\n"], stderr);
      await nothingLeft();
    } finally {
      model.close();
    }
  });

  test("data analysis: steps share their variables, and the plot comes back", async () => {
    // Where no place is named, it is none of the checkout's.
    const temporary = await mkdtemp(join(server.root, "tmp-"));
    const { code, stdout, stderr } = await run("data-analysis.ts", [], { TMPDIR: temporary });
    assert.equal(code, 0, stderr);
    const plot = join(temporary, "plot.svg");
    assert.match(stdout, /^60 days, mean \d+\.\d\ntrend: \d\.\d+ visits per day\n/);
    assert.ok(stdout.endsWith(`\nplot: ${plot}\n`), stdout);
    assert.match(await readFile(plot, "utf8"), /^<svg .*<polyline points="20\.0,/);
    await nothingLeft();
  });

  test("CI over forks: each copy has what was prepared; the failing shard fails the job", async () => {
    const { code, stdout, stderr } = await run("ci-forks.ts");
    assert.deepEqual([code, stdout], [1, "passed test-1.sh\npassed test-2.sh\nFAILED test-3.sh\n"], stderr);
    await nothingLeft();
  });

  test("code interpreter in a terminal", async () => {
    const python = new Terminal(
      spawn(
        "python3",
        [join(packageRoot, "test/terminal.py"), "24", "80", process.execPath, path("code-interpreter.ts")],
        {
          env: { ...process.env, STACYVM_URL: server.url },
          stdio: ["pipe", "pipe", "inherit"],
        },
      ),
    );
    await python.until(/>>> $/);
    python.type("x = 6\r");
    await python.until(/x = 6\s+>>> $/);
    python.type("x * 7\r");
    await python.until(/\n42\n>>> $/);
    python.type("\x04");
    assert.equal(await python.exited, 0);
    await nothingLeft();
  });
});
