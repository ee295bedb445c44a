import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputBudget } from "../guest/output-budget.ts";
import type { CodeEvent } from "../sandboxes/code.ts";
import { collectCode } from "./collected-code.ts";
import { jsonRecord } from "./streams.ts";

async function* of(...events: CodeEvent[]): AsyncGenerator<CodeEvent> {
  yield* events;
}

const budget = () => new OutputBudget(1_000_000, 1_000_000);

test("the answer is what the events said", async () => {
  const events = of(
    { type: "stdout", text: "a" },
    { type: "result", text: "1", is_main_result: true },
    { type: "result", json: { b: [2] } },
    { type: "stdout", text: "c" },
    { type: "error", name: "E", value: "v", traceback: "t" },
    { type: "end", execution_count: 3 },
  );
  const body = await collectCode(events, budget().open());
  assert.deepEqual(await jsonRecord(body, () => {}).json(), {
    ...{
      results: [
        { main: true, text: "1" },
        { main: false, json: { b: [2] } },
      ],
      stdout: "ac",
      stderr: "",
    },
    ...{ error: { name: "E", value: "v", traceback: "t" }, execution_count: 3 },
  });
  const nothing = jsonRecord(await collectCode(of(), budget().open()), () => {});
  assert.deepEqual(await nothing.json(), { results: [], stdout: "", stderr: "", execution_count: 0 });
});

test("what has no room is an error, in few large events as in many that say nothing; what was taken is given back", async () => {
  const shared = budget();
  const many = Array.from({ length: 100_000 }, () => ({ type: "stdout", text: "" }));
  for (const events of [many, [{ type: "result", text: "x".repeat(600_000) }]]) {
    using memory = shared.open("owner");
    await assert.rejects(collectCode(of(...events), memory), { code: "limit" });
  }
  using again = shared.open();
  assert.equal(again.take(1_000_000), 1_000_000);
});
