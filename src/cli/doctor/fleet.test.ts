import assert from "node:assert/strict";
import { test } from "node:test";
import { type ComparedNode, compareNodes } from "./fleet.ts";

const node = (name: string, more: Partial<ComparedNode> = {}): ComparedNode => ({
  ...{ name, state: "up", draining: false, version: "1.0.0", hostIdentity: "a", load: { clockOffsetMs: 0 } },
  ...more,
});
const said = (...nodes: ComparedNode[]): string[] =>
  compareNodes(nodes).map(({ name, state, detail }) => `${name} ${state}: ${detail}`);

test("a server that is alone has no fleet to compare", () => {
  assert.deepEqual(compareNodes([]), []);
});

test("a fleet whose nodes agree is said in four lines", () => {
  assert.deepEqual(said(node("one"), node("two", { load: { clockOffsetMs: -200 } })), [
    "fleet ok: 2 nodes: one, two",
    "fleet versions ok: 1.0.0",
    "fleet clocks ok: at most 0.2 s apart",
    "fleet hosts ok: of one kind",
  ]);
});

test("who is away, another version, a clock that is far ahead and a host of another kind are named", () => {
  const all = compareNodes([
    node("one", { load: { clockOffsetMs: -4_000 } }),
    node("two", { version: "1.1.0", draining: true, load: { clockOffsetMs: 3_000 } }),
    node("three", { state: "lost", hostIdentity: "b", load: { clockOffsetMs: 90_000 } }),
    node("four", { load: {} }),
  ]);
  assert.deepEqual(
    all.map(({ name, state, detail }) => `${name} ${state}: ${detail}`),
    [
      "fleet note: 4 nodes: one, two draining, three lost, four",
      "fleet versions note: 1.0.0 on one, three, four; 1.1.0 on two",
      "fleet clocks note: that of two is 7.0 s ahead of that of one",
      "fleet hosts ok: of 2 kinds: one, two, four; three",
    ],
  );
  assert.ok(all.filter(({ state }) => state === "note").every(({ remedy }) => remedy !== undefined));
});
