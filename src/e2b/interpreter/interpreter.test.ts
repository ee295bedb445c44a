import assert from "node:assert/strict";
import { test } from "node:test";
import { withFloats } from "./interpreter.ts";

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
