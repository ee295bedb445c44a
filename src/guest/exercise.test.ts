import assert from "node:assert/strict";
import { test } from "node:test";
import { exerciseArgv, isExercise } from "./exercise.ts";

test("what made a machine ready is told from what its user runs, also from the same words", () => {
  assert.equal(isExercise(exerciseArgv("sh").join(" ")), true);
  for (const command of ["sh -c echo exercised", "sh -c echo ready", "stacyvm-exercise", ""])
    assert.equal(isExercise(command), false, command);
});
