/** The Python package as it is published: a wheel, installed into an environment of its own, against a real server. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { synchronous } from "../scripts/generate-python.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { ownPython } from "./python-support.ts";
import { Server } from "./server-support.ts";

describe("the Python package", { timeout: 300_000 }, () => {
  let python: string;
  let dir: string;
  let server: Server;
  before(async () => {
    python = await ownPython();
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "python-"));
    server = await Server.create();
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  test("asynchronous and synchronous: what the TypeScript SDK is tested by, in one list", async () => {
    const source = await readFile(join(packageRoot, "test/python-scenarios.py"), "utf8");
    const scenarios = await readFile(join(packageRoot, "test/sdk.test.ts"), "utf8");
    const names = [...scenarios.matchAll(/^ {2}test\("(.*)", async/gm)].map(([, name]) => name);
    assert.ok(names.length >= 8);
    await writeFile(join(dir, "a.py"), source);
    await writeFile(join(dir, "s.py"), synchronous(source));
    for (const [module, call] of [
      ["a", `__import__("asyncio").run(a.main(${JSON.stringify(server.url)}))`],
      ["s", `s.main(${JSON.stringify(server.url)})`],
    ] as const) {
      const out = await runTool(python, ["-W", "error", "-c", `import ${module}; ${call}`], {
        cwd: dir,
        timeoutMs: 120_000,
      });
      // The synchronous form of the list has no word of the other one, in its titles neither.
      const expected = module === "s" ? names.map((name) => name?.replaceAll("await ", "")) : names;
      assert.deepEqual(out.toString("utf8").trim().split("\n"), expected, module);
    }
  });

  test("names of any bytes leave as they are, as `os.fsdecode` gives them", async () => {
    const program = `
import http.server, threading
from stacyvm_sdk import Client
seen = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append((self.path, self.rfile.read(int(self.headers.get("content-length", "0")))))
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    do_GET = do_POST
    def log_message(self, *_): pass
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    transport = Client(f"http://127.0.0.1:{server.server_port}", api_key="k")._transport
    transport.call("GET", "/x", params={"path": "/a b/caf\\udce9/*"})
    transport.call("POST", "/x", body={"oldPath": "/caf\\udce9"})
    transport.http.close()
    server.shutdown()
assert seen == [("/api/v1/x?path=%2Fa%20b%2Fcaf%E9%2F%2A", b""), ("/api/v1/x", b'{"oldPath": "/caf\\\\udce9"}')], seen
`;
    await runTool(python, ["-W", "error", "-c", program], { cwd: dir, timeoutMs: 120_000 });
  });

  test("no server, a wrong key, a wrong address: errors that say what to do", async () => {
    const program = `
from stacyvm_sdk import Client, ConnectionError, InvalidError, NotFoundError, ReplyError
from stacyvm_sdk.values import exec_result, run_result
def fails(kind, work):
    try:
        work()
    except kind as error:
        return error
    raise AssertionError(kind)
assert "stacyvm serve" in str(fails(ConnectionError, Client("http://127.0.0.1:1", retries=0).health))
assert isinstance(fails(ConnectionError, Client("http://127.0.0.1:1", retries=0).health), OSError)
fails(InvalidError, lambda: Client("nowhere"))
client = Client(${JSON.stringify(server.url)})
fails(NotFoundError, lambda: client.create(image="stacyvm/busybox", template="none"))
sandbox = client.create(image="stacyvm/busybox", memory_mb=256)
sandbox.destroy()
fails(NotFoundError, lambda: sandbox.spawn("true"))
fails(NotFoundError, lambda: sandbox.port(1).connect())
fails(ReplyError, Client(${JSON.stringify(server.url)} + "/ui/#").health)
ended = {"exit_code": 137, "stdout": "", "stderr": "", "duration": "1ms", "reason": "out-of-memory", "newer": 1}
assert exec_result(ended).reason == "out-of-memory"
del ended["exit_code"]
fails(ReplyError, lambda: exec_result(ended))
fails(ReplyError, lambda: run_result(ended))
`;
    await runTool(python, ["-c", program], { timeoutMs: 60_000 });
  });

  test("the wheel has the types' marker and no test; its types are sound", async () => {
    const [wheel = ""] = (await readdir(join(packageRoot, ".build", "wheel"))).filter((name) => name.endsWith(".whl"));
    const listing = await runTool(python, ["-m", "zipfile", "-l", join(packageRoot, ".build", "wheel", wheel)]);
    assert.match(listing.toString(), /stacyvm_sdk\/py\.typed/);
    assert.doesNotMatch(listing.toString(), /test/);
    await runTool(python, ["-m", "mypy", "--strict", "--cache-dir", dir, "-p", "stacyvm_sdk"], { timeoutMs: 240_000 });
  });
});
