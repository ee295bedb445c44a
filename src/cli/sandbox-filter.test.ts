import assert from "node:assert/strict";
import { test } from "node:test";
import type { SandboxInfo } from "../../sdk/src/index.ts";
import { Filters } from "./sandbox-filter.ts";

test("filters: one kind twice is either, different kinds are both, labels are all; Docker's words do", () => {
  const all = [
    { id: "sb-1", name: "web-1", state: "running", image: "python:3.12", metadata: { team: "a", x: "=" } },
    { id: "sb-2", name: "web-2", state: "paused", image: "python", metadata: { team: "b" } },
    { id: "sb-3", state: "running", image: "pythonic", metadata: {} },
    { id: "sb-4", state: "running", image: "alpine", metadata: {}, unreachable: { since: "", reason: "stopped" } },
  ] as unknown as SandboxInfo[];
  const of = (...texts: string[]) => {
    const filters = texts.reduce((built, text) => built.add(text), new Filters());
    return all.filter((info) => filters.take(info)).map(({ id }) => id.slice(3));
  };
  assert.deepEqual(of("name=web"), ["1", "2"]);
  assert.deepEqual(of("state=running", "status=paused", "name=web-2"), ["2"]);
  assert.deepEqual(of("state=running"), ["1", "3"]);
  assert.deepEqual(of("state=unreachable"), ["4"]);
  assert.deepEqual(of("ancestor=python"), ["1", "2"]);
  assert.deepEqual(of("label=team"), ["1", "2"]);
  assert.deepEqual(of("label=team", "label=x=="), ["1"]);
  assert.deepEqual(of("label=toString"), []);
  for (const wrong of ["running", "state=", "constructor=x"]) assert.throws(() => of(wrong), /write name=, state=/);
});
