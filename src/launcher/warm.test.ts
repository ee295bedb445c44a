import assert from "node:assert/strict";
import { test } from "node:test";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { exercise } from "./warm.ts";

test("an image whose PATH has no shell is told so, with what to do", async () => {
  const missing = new StacyError("not-found", "sh: No such file or directory");
  const agent = {
    ...{ hello: { guest: "linux" }, ping: async () => {}, exercise: async () => {} },
    exec: async () => Promise.reject(missing),
  } as unknown as Agent;
  await assert.rejects(exercise(agent), { code: "not-found", message: /image's PATH has a shell/, remedy: /:\$PATH/ });
  const lost = new StacyError("unavailable", "its connection is gone");
  await assert.rejects(
    exercise({ ...agent, exec: async () => Promise.reject(lost) } as unknown as Agent),
    (error) => error === lost,
  );
});
