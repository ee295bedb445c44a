import assert from "node:assert/strict";
import { test } from "node:test";
import { withExtra, withFloats } from "./interpreter.ts";

test("numbers of a chart are floats, and others are as they were", () => {
  const chart = {
    type: "line",
    title: null,
    elements: [
      {
        label: "1",
        points: [
          [0, -1.5],
          ["a", 3],
        ],
      },
    ],
    x_ticks: [1e300, 2 ** 60],
  };
  assert.equal(
    JSON.stringify(withFloats({ type: "result", n: 1, chart })),
    '{"type":"result","n":1,"chart":{"type":"line","title":null,"elements":[{"label":"1","points":[[0.0,-1.5],["a",3.0]]}],"x_ticks":[1e+300,1152921504606847000.0]}}',
  );
  assert.deepEqual(withFloats({ type: "result", n: 1 }), { type: "result", n: 1 });
});

test("a form that has no name of E2B's is there twice: Python's clients and JavaScript's look at different places", () => {
  const named = { type: "result", is_main_result: true, text: "t", png: "p", chart: {}, data: {} };
  assert.deepEqual(withExtra(named), named);
  const own = { "application/vnd.plotly.v1+json": { data: [1] }, "text/x-own": "own" };
  assert.deepEqual(withExtra({ ...named, ...own }), { ...named, ...own, extra: own });
});
