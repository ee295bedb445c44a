import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { StacyError } from "../host/error.ts";
import { formatDuration, parseDuration } from "./duration.ts";

test("reads every form that Go reads", () => {
  const forms: [string, number][] = [
    ["0", 0],
    ["-0", 0],
    ["300ms", 300],
    ["1.5h", 5_400_000],
    ["2h45m", 9_900_000],
    ["-1.5s", -1500],
    ["+5s", 5000],
    [".5s", 500],
    ["1.s", 1000],
    ["10us", 0.01],
    ["10\u00b5s", 0.01],
    ["10\u03bcs", 0.01],
    ["1h1m1s1ms1us1ns", 3_661_001.001001],
    ["24h0m0s", 86_400_000],
  ];
  for (const [text, ms] of forms) assert.equal(parseDuration(text), ms, text);
});

test("refuses what Go refuses", () => {
  const forms = ["", "30", "-", "s", ".s", "1d", "1h 2m", "1e3s", "0x1s", "--1s", "1s-", "NaN", "99999999999h"];
  for (const text of forms) {
    assert.throws(
      () => parseDuration(text),
      (error: unknown) => error instanceof StacyError && error.code === "invalid",
      text,
    );
  }
});

test("writes Go's output form", () => {
  const forms: [number, string][] = [
    [0, "0s"],
    [86_400_000, "24h0m0s"],
    [1_800_000, "30m0s"],
    [1.234567, "1.234567ms"],
    [0.0123, "12.3\u00b5s"],
    [0.000005, "5ns"],
    [1500, "1.5s"],
    [-90_000, "-1m30s"],
  ];
  for (const [ms, text] of forms) assert.equal(formatDuration(ms), text);
});

test("what is written can be read again", () => {
  fc.assert(
    fc.property(fc.integer({ min: -1_000_000_000, max: 1_000_000_000 }), (ms) => {
      assert.equal(parseDuration(formatDuration(ms)), ms);
    }),
  );
});
