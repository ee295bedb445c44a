/** What the console reads from a guest's kernel, and what it writes for people to copy. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import type { SpawnRequest } from "../sdk/src/index.ts";
import { parsePorts } from "../sdk/src/index.ts";
import { BEAT_LIMIT_MS, BEAT_MS } from "../web/src/core/beat.ts";
import { copyAs } from "../web/src/core/copy-as.ts";
import { LogLines } from "../web/src/core/log-lines.ts";
import { notes } from "../web/src/core/notes.ts";
import { routeOf } from "../web/src/core/route.ts";
import { parseProcesses } from "../web/src/sandbox/in-guest.ts";

const REQUEST: SpawnRequest = {
  name: "first-1",
  image: "stacyvm/python",
  memoryMb: 512,
  env: { A: "it's $HOME", camelCase: "stays" },
  metadata: { team: "the first" },
  allowedHosts: ["pypi.org", "*.example.com"],
  ttl: "1h",
};

test("a spawn for a shell: its words are what was asked for, whatever is in them", () => {
  const words = execFileSync(
    "sh",
    ["-c", `stacyvm() { printf '%s\\n' "$@"; }\n${copyAs("CLI", REQUEST, "http://h:1")}`],
    {
      encoding: "utf8",
    },
  );
  assert.deepEqual(words.trim().split("\n"), [
    ...["spawn", "stacyvm/python", "--name", "first-1", "--memory", "512m", "--ttl", "1h"],
    ...["--env", "A=it's $HOME", "--env", "camelCase=stays", "--label", "team=the first"],
    ...["--allow", "pypi.org", "--allow", "*.example.com"],
  ]);
  const sent = execFileSync(
    "sh",
    ["-c", `curl() { for last; do :; done; printf '%s' "$last"; }\n${copyAs("curl", REQUEST, "http://h:1")}`],
    {
      encoding: "utf8",
    },
  );
  assert.deepEqual(JSON.parse(sent), {
    name: "first-1",
    image: "stacyvm/python",
    memory_mb: 512,
    env: REQUEST.env,
    metadata: REQUEST.metadata,
    allowed_hosts: REQUEST.allowedHosts,
    ttl: "1h",
  });
});

test("a spawn for TypeScript and Python: programs of these languages", () => {
  assert.match(
    copyAs("TypeScript", REQUEST, "http://h:1"),
    /client\.create\(\{\n {2}name: "first-1",\n {2}image: "stacyvm\/python",\n {2}memoryMb: 512,\n {2}env: \{\n {4}A: "it's \$HOME"/,
  );
  const program = copyAs("Python", REQUEST, "http://h:1");
  execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.argv[1])", program]);
  assert.match(program, /memory_mb=512,\n {4}env=\{\n {8}"A": "it's \$HOME"/);
});

test("processes of a guest: names with blanks and brackets, commands without words, none of the kernel's own", () => {
  const stat = (pid: number, name: string, parent: number) =>
    `${pid} (${name}) S ${parent} 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 30 1000 25 18446744073709551615`;
  const found = parseProcesses(
    [
      `${stat(1, "agent", 0)}\t/agent --now `,
      `${stat(2, "kthreadd", 0)}\t`,
      `${stat(9, "kworker", 2)}\t`,
      `${stat(30, "a) (b", 1)}\t`,
      "nonsense",
      "",
    ].join("\n"),
  );
  assert.deepEqual(found, [
    { pid: 1, parent: 0, state: "S", memory: 25 * 4096, command: "/agent --now" },
    { pid: 30, parent: 1, state: "S", memory: 25 * 4096, command: "[a) (b]" },
  ]);
});

test("ports of a guest: those that programs listen on, each once", () => {
  const text = `lrwx------ 1 root root 64 Jan  1 00:00 5 -> socket:[900]
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1201 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F40 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 1202 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:0C38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 900 1 0000000000000000 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1203 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1204 1 0000000000000000 100 0 0 10 0
`;
  assert.deepEqual(parsePorts(text), [22, 8000]);
});

test("addresses in the page, those of earlier versions too", () => {
  assert.deepEqual(routeOf(""), { page: "sandboxes" });
  assert.deepEqual(routeOf("#/nonsense"), { page: "sandboxes" });
  assert.deepEqual(routeOf("#/sb-0a1b2c3d"), { page: "sandbox", id: "sb-0a1b2c3d", tab: "terminal" });
  assert.deepEqual(routeOf("#/sandboxes/sb-0a1b2c3d/logs"), { page: "sandbox", id: "sb-0a1b2c3d", tab: "logs" });
  assert.deepEqual(routeOf("#/new?image=a%2Fb"), { page: "new", fill: { image: "a/b" } });
});

test("a server that is gone is seen within two seconds: how long that took in a browser is said in console-pages.test.ts", () => {
  assert.ok(BEAT_MS + BEAT_LIMIT_MS < 2_000);
});

test("a message goes by itself, stays while it is read, can be closed, and the same is not said twice", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const said = (): string[] => notes.list.map(({ text }) => text);
  notes.say("Saved.");
  notes.fail(Object.assign(new Error("it is paused"), { hint: "resume it first" }));
  notes.say("Saved.");
  assert.deepEqual(said(), ["Saved.", "it is paused (resume it first)"]);
  t.mock.timers.tick(6_000);
  assert.deepEqual(said(), ["it is paused (resume it first)"], "a failure stays longer");
  const [failure] = notes.list;
  assert.ok(failure);
  notes.hold(failure.id);
  t.mock.timers.tick(60_000);
  assert.equal(said().length, 1, "somebody reads it");
  notes.release(failure);
  t.mock.timers.tick(15_000);
  assert.deepEqual(said(), []);
  notes.say("Removed.");
  notes.close(notes.list[0]?.id ?? -1);
  assert.deepEqual(said(), []);
});

test("a program's log: each line with the time of its first piece, streams not mixed, old lines gone", () => {
  const lines = new LogLines(20);
  lines.add({ stream: "stdout", text: "half ", time: "1" });
  lines.add({ stream: "stderr", text: "no\n", time: "2" });
  lines.add({ stream: "stdout", text: "whole\nnext\r\n", time: "3" });
  assert.equal(lines.text(), "half whole\nno\nnext");
  assert.equal(
    lines.text((time) => `at ${time}`),
    "at 1  half whole\nat 2  no\nat 3  next",
  );
  lines.add({ stream: "stdout", text: "a new line\n", time: "4" });
  assert.equal(lines.text(), "no\nnext\na new line");
  // One without an end is bounded, too.
  for (let i = 0; i < 10; i++) lines.add({ stream: "stderr", text: "0123456789", time: "5" });
  assert.ok(lines.text().length <= 20 + "\n".length * 3, lines.text());
  // Nor does one stand in the way of what comes after it, and empty ones count.
  for (let i = 0; i < 100; i++) lines.add({ stream: "stdout", text: "\n0123\n", time: "6" });
  assert.ok(lines.text().length <= 20, lines.text());
});
