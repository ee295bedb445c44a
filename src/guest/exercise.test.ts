import assert from "node:assert/strict";
import { test } from "node:test";
import { exerciseArgv, isExercise } from "./exercise.ts";

test("what made a machine ready is told from what its user runs, also from what calls itself so", () => {
  for (const shell of ["sh", "/bin/sh"] as const) {
    const command = exerciseArgv(shell).join(" ");
    assert.equal(isExercise({ command, running: false }), true);
    assert.equal(isExercise({ command, running: true }), false, "it has ended before anybody looks");
  }
  for (const command of ["sh -c echo exercised", "miner stacyvm-exercise", "sh -c sleep 9 stacyvm-exercise", ""])
    assert.equal(isExercise({ command, running: false }), false, command);
});
