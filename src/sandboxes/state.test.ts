import assert from "node:assert/strict";
import { test } from "node:test";
import { assertMayBecome, holdsMachine, isVisible, mayBecome, type SandboxState } from "./state.ts";

const ALL: SandboxState[] = ["creating", "running", "paused", "suspended", "error", "expired", "destroyed"];

test("from every state there is a way to the end, and from the end none back", () => {
  for (const state of ALL) {
    if (state !== "destroyed") assert.ok(mayBecome(state, "destroyed"), state);
    assert.equal(mayBecome("destroyed", state), false);
    // An expired one is only ever removed, a failed one too.
    for (const alive of ["creating", "running", "paused", "suspended"] as const) {
      assert.equal(mayBecome("expired", alive), false);
      assert.equal(mayBecome("error", alive), false);
    }
  }
});

test("a way that is not there says why: gone, or both states by name", () => {
  assert.throws(() => assertMayBecome("sb-1", "destroyed", "running"), { code: "not-found" });
  assert.throws(() => assertMayBecome("sb-1", "suspended", "paused"), {
    code: "conflict",
    message: /suspended and cannot become paused/,
    remedy: /resume it first/,
  });
  for (const from of ALL) {
    for (const to of ALL.filter((each) => isVisible(from) && !mayBecome(from, each))) {
      assert.throws(
        () => assertMayBecome("sb-1", from, to),
        ({ remedy }) => remedy.length > 5,
        `${from} to ${to}`,
      );
    }
  }
});

test("what clients see no longer holds no machine of theirs", () => {
  for (const state of ALL) if (!isVisible(state)) assert.equal(holdsMachine(state), false, state);
});
