import assert from "node:assert/strict";
import { test } from "node:test";
import { judge, judgeRounds, LEAST } from "./baseline.ts";

const RUNS = [2.0, 2.1, 1.9, 2.4, 2.2];

test("as slow as the slowest run that is known is not slower", () => {
  const { known, slower } = judge("create", 2.4, RUNS);
  assert.deepEqual([known?.n, known?.low, known?.median, known?.high, slower], [5, 1.9, 2.1, 2.4, false]);
});

test("beyond the spread of the known runs it is", () => {
  assert.equal(judge("create", 2.69, RUNS).slower, false);
  assert.equal(judge("create", 2.75, RUNS).slower, true);
});

test("runs that hardly differ do not make a small change a slower one", () => {
  const same = Array.from({ length: LEAST }, () => 1);
  assert.equal(judge("create", 1.1, same).slower, false);
  assert.equal(judge("create", 1.2, same).slower, true);
});

test("too few runs say nothing", () => {
  const { known, slower } = judge("create", 100, RUNS.slice(1));
  assert.deepEqual([known, slower], [undefined, false]);
});

test("another server is slower when most rounds say so, not when some are far off", () => {
  const rounds = (slow: number, by: number): number[] => [...Array(slow).fill(by), ...Array(16 - slow).fill(0.95)];
  assert.equal(judgeRounds("create", rounds(16, 1.2)).slower, true);
  assert.equal(judgeRounds("create", rounds(9, 1.5)).slower, false);
  assert.equal(judgeRounds("create", rounds(16, 1.05)).slower, false);
  assert.equal(judgeRounds("create", [2, 2]).slower, false);
});
