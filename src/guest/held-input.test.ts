import assert from "node:assert/strict";
import { test } from "node:test";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { HeldInput } from "./held-input.ts";

const { inputBytes, inputFreeBytes } = GUEST_BOUNDS;

test("one owner holds half at most, the others find room, and what was given back may be held again", () => {
  const mine = Array.from({ length: 8 }, () => new HeldInput("a"));
  const eighth = inputBytes / 8;
  let held = 0;
  for (const each of mine) {
    try {
      each.add(eighth);
      held += 1;
    } catch (error) {
      assert.equal((error as { code?: string }).code, "limit");
    }
  }
  assert.equal(held, 4);
  {
    using theirs = new HeldInput("b");
    theirs.add(eighth);
  }
  // The first of each call are not counted: what is short is taken, however much waits.
  const small = Array.from({ length: 100 }, () => new HeldInput("a"));
  for (const each of small) each.add(inputFreeBytes);
  for (const each of [...mine, ...small]) each[Symbol.dispose]();
  using again = new HeldInput("a");
  again.add(inputBytes / 2);
  assert.throws(() => again.add(2 * inputFreeBytes), { code: "limit" });
  again[Symbol.dispose]();
  again.add(inputBytes / 2);
});

test("in pieces it is as much as at once", () => {
  using held = new HeldInput("a");
  for (let i = 0; i < inputBytes / 2 / inputFreeBytes + 1; i++) held.add(inputFreeBytes);
  assert.throws(() => held.add(1), { code: "limit" });
});
