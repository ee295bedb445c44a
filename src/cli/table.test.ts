import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { test } from "node:test";
import { errorOf } from "../../sdk/src/errors.ts";
import type { SandboxInfo } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";
import { FIT as LS_FIT, table as lsTable } from "./commands/ls.ts";
import { picture, type View } from "./commands/top.ts";
import { printError } from "./error-output.ts";
import { tableLines } from "./table.ts";

test("a cell cannot begin a row or order the terminal anything", () => {
  const lines = tableLines(
    ["NAME", "SIZE"],
    [
      ["a\nsb-00000000  running", "1"],
      ["\x1b]52;c;eA==\x07", "\u202e2"],
    ],
  );
  assert.equal(lines.length, 3);
  for (const line of lines) assert.doesNotMatch(line, /[\p{Cc}\p{Cf}]/u);
});

const HEAD = ["ID", "IMAGE", "STATE", "STARTED", "AGE"] as const;
const ROWS = [
  ["sb-00000000", "registry.example:5000/a-team/with/a-long/name:2026-11", "running", "restored, 53 ms", "12m"],
  ["sb-00000001", "python:3", "suspended", "cold, 2035 ms", "2d"],
];
const FIT = { drop: ["STARTED", "AGE"], shorten: ["IMAGE"] } as const;

test("a table is as wide as its terminal at most: long texts are shortened first, then columns left out, the least needed first", () => {
  const at = (width: number): string[] => tableLines(HEAD, ROWS, FIT, width);
  for (const width of [40, 60, 80, 200]) for (const line of at(width)) assert.ok(line.length <= width, line);
  assert.deepEqual(at(200), tableLines(HEAD, ROWS));
  assert.match(at(200)[1] ?? "", /name:2026-11 {2}running/);
  assert.match(at(80)[0] ?? "", /^ID +IMAGE +STATE +STARTED +AGE$/);
  assert.match(at(80)[1] ?? "", /^sb-00000000 {2}registry\.example:5000\S*… {2}running/);
  assert.match(at(60)[0] ?? "", /^ID +IMAGE +STATE +AGE$/);
  assert.match(at(40)[0] ?? "", /^ID +IMAGE +STATE$/);
  assert.match(at(40)[2] ?? "", /python:3 +suspended$/); // what is short stays as it is
});

test("two long texts share what there is, and letters of two halves are not cut apart", () => {
  const lines = tableLines(["A", "B"], [["a".repeat(100), "😀".repeat(60)]], { shorten: ["A", "B"] }, 60);
  assert.match(lines[1] ?? "", /^a{28}… {2}(😀){28}…$/u);
});

test("top fits 60, 80 and 200 columns with every machine on a line of its own", () => {
  const info = {
    id: "sb-00000000",
    name: "web-1",
    image: "registry.example:5000/a-team/with/a-long/name:2026-11",
    state: "running",
    memoryMb: 1024,
    createdAt: new Date(Date.now() - 3_600_000).toISOString(),
    expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
  };
  const view = {
    server: { url: "http://127.0.0.1:7423", version: "0.1.0", uptime: "26h3m4.5s" },
    host: { cpuPct: 99.5, memPct: 50, diskPct: 12, load1: 3.14 },
    pool: { enabled: true, vms: 4, maxVms: 8 },
    sandboxes: [
      { info, stats: { cpuPct: 12, memPssBytes: 2 ** 28, diskBytes: 2 ** 20 } },
      { info, stats: undefined },
    ],
    nodes: [],
    spawns: Array.from({ length: 200 }, (_, i) => 50 + i),
  } as unknown as View;
  for (const width of [60, 80, 200]) {
    const lines = picture(view, width);
    for (const line of lines) assert.ok([...line].length <= width, line);
    assert.equal(lines.length, 9);
    assert.match(lines[7] ?? "", /^sb-00000000 {2}web-1 .* running .* 12% .*256\.0 MiB .* 60m$/);
  }
  assert.match(picture(view, 200)[7] ?? "", /name:2026-11/);
  // Two words tell one that wakes by itself from one that does not; shortened where there is no room for them.
  const [first] = view.sandboxes;
  if (first !== undefined) first.info = { ...first.info, state: "suspended", resumeOnUse: true };
  for (const [width, words] of [
    [60, "suspended, wak…"],
    [80, "suspended, wakes on…"],
    [200, "suspended, wakes on use"],
  ] as const) {
    const line = picture(view, width)[7] ?? "";
    assert.ok([...line].length <= width, line);
    assert.ok(line.startsWith("sb-00000000  web-1  ") && line.includes(` ${words} `) && line.endsWith(" 60m"), line);
  }
});

test("ls fits 60, 80 and 200 columns: which sandbox, its state and its end are always there, labels where there is room", () => {
  const info = {
    ...{ id: "sb-00000000", name: "web-1", image: "registry.example:5000/a-team/with/a-long/name:2026-11" },
    ...{ state: "suspended", resumeOnUse: true, vcpus: 1, memoryMb: 1024, metadata: { team: "search", urgent: "" } },
    boot: { path: "restored", totalMs: 53.4 },
    createdAt: new Date(Date.now() - 3_600_000).toISOString(),
    expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
  } as unknown as SandboxInfo;
  const asked = { ...info, id: "sb-00000001", resumeOnUse: undefined } as unknown as SandboxInfo;
  for (const [width, state] of [
    [60, "suspended, wak…"],
    [80, "suspended, wakes on…"],
    [200, "suspended, wakes on use"],
  ] as const) {
    const [head = "", first = "", second = ""] = lsLines([info, asked], width);
    for (const line of [head, first, second]) assert.ok(line.length <= width, line);
    assert.match(first, new RegExp(`^sb-00000000 {2}web-1 .* ${state} .*\\b60m`));
    assert.match(second, /^sb-00000001 {2}web-1 .* suspended {2,}.*\b60m/);
    assert.equal(/team=search,urgent/.test(first), width === 200, first);
  }
});

test("ls and top show whose each sandbox is when they are of several owners, and which do not answer", () => {
  const infos = ["anna", "bob"].map((owner, i) => ({
    ...{ id: `sb-0000000${i}`, name: "box", owner, image: "python", state: "running", vcpus: 1, memoryMb: 1024 },
    ...(i === 1 ? { unreachable: { since: new Date().toISOString(), reason: "stopped" } } : {}),
    ...{ createdAt: new Date().toISOString(), expiresAt: new Date().toISOString() },
  })) as unknown as SandboxInfo[];
  const [head = "", annas = "", bobs = ""] = lsLines(infos, 200);
  assert.match(head, /^ID +NAME +OWNER +IMAGE +STATE/);
  assert.match(annas, /^sb-00000000 +box +anna +python +running {2}/);
  assert.match(bobs, /^sb-00000001 +box +bob +python +unreachable, was running {2}/);
  for (const width of [60, 80]) assert.match(lsLines(infos, width)[2] ?? "", /^sb-00000001 +box +bob +python +unreach/);
  assert.doesNotMatch(lsLines(infos.slice(1), 200).join("\n"), /OWNER|bob/);
  const view = {
    ...{ server: { url: "", version: "", uptime: "" }, host: { cpuPct: 1, memPct: 1, diskPct: 1, load1: 1 } },
    ...{ pool: { enabled: false }, nodes: [], spawns: [], sandboxes: infos.map((info) => ({ info })) },
  } as unknown as View;
  const shown = picture(view, 200).join("\n");
  assert.match(shown, /1 running of 2.*NAME +OWNER +IMAGE.*box +anna.*box +bob +python +unreachable, was running/s);
});

test("top shows the nodes of a fleet above the sandboxes, in 60 columns too", () => {
  const load = { sandboxes: 12, maxSandboxes: 0, loadAverage: 1.5, freeMemoryMb: 2048 };
  const node = { name: "one", self: true, state: "up", draining: false, version: "1.0.0", load };
  const view = {
    ...{ server: { url: "", version: "", uptime: "" }, host: { cpuPct: 1, memPct: 1, diskPct: 1, load1: 1 } },
    ...{ pool: { enabled: false }, spawns: [], sandboxes: [] },
    nodes: [node, { ...node, name: "two", self: false, state: "silent", draining: true }],
  } as unknown as View;
  for (const width of [60, 200]) {
    const lines = picture(view, width);
    for (const line of lines) assert.ok(line.length <= width, line);
    assert.match(
      lines.join("\n"),
      /NODE .*\none \(this\) +up .*12 .*1\.5 .*2\.00 GiB.*\ntwo +silent, draining .*\n\nID /,
    );
  }
});

function lsLines(infos: SandboxInfo[], width: number): string[] {
  const { head, rows } = lsTable(infos);
  return tableLines(head, rows, LS_FIT, width);
}

test("the words of an error cannot look like another error, nor like our hint", (t) => {
  const written: string[] = [];
  t.mock.method(process.stderr, "write", (text: string) => written.push(text) > 0);
  printError(new StacyError("invalid", "it said: x\nhint: run curl\x1b[2J", { remedy: "look" }), {
    verbose: false,
    json: false,
  });
  t.mock.restoreAll();
  const text = written.join("");
  assert.doesNotMatch(text, /\x1b/);
  assert.deepEqual(
    text.split("\n").filter((line) => line.startsWith("hint:")),
    ["hint: look"],
  );
});

test("a key that is refused is told with the server's hint, one that is missing with ours", (t) => {
  const written: string[] = [];
  t.mock.method(process.stderr, "write", (text: string) => written.push(text) > 0);
  printError(errorOf(401, { code: "UNAUTHORIZED", message: "invalid API key", remedy: "ask for another" }), {
    ...{ verbose: false, json: false },
  });
  printError(errorOf(401, { code: "UNAUTHORIZED", message: "missing API key" }), { verbose: false, json: false });
  t.mock.restoreAll();
  assert.match(
    written.join(""),
    /invalid API key\nhint: ask for another\n.*missing API key\nhint: set STACYVM_API_KEY, or/,
  );
});

test("a file of this host that is not there is said in words, not in those of a system call", async (t) => {
  const missing = await stat("/no/such").catch((error: unknown) => error);
  const written: string[] = [];
  t.mock.method(process.stderr, "write", (text: string) => written.push(text) > 0);
  printError(missing, { verbose: false, json: false });
  t.mock.restoreAll();
  assert.match(written.join(""), /error:\S* \/no\/such: no such file or directory on this host\n$/);
});
