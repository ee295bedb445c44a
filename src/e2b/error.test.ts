/** Errors that E2B's clients act on by their code: they ask again after some, and tell their users what the others mean. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "@connectrpc/connect";
import { Admissions } from "../sandboxes/admissions.ts";
import type { Admission } from "../sandboxes/limits.ts";
import { Users } from "./envd/users.ts";
import { connectError, errorResponse } from "./error.ts";

const answerOf = async (error: unknown) => {
  const response = errorResponse(error);
  const { code, message } = (await response.json()) as { code: number; message: string };
  assert.equal(code, response.status);
  return { status: response.status, again: response.headers.has("retry-after"), message };
};

test("what is never given is an argument's fault; what is not given now may be asked for again", async () => {
  const admissions = new Admissions({ events: { emit: () => {} } } as never);
  const refused = (reason: Admission["reason"]) =>
    admissions.refusal({ reason, maxTtlMs: 3_600_000, maxSandboxes: 1, activeSandboxes: 1 } as Admission, "default");
  const { status, again, message } = await answerOf(refused("max_ttl"));
  assert.deepEqual([status, again], [400, false]);
  assert.match(message, /over the limit of 1h/);
  assert.equal(connectError(refused("max_ttl").inPhase("another")).code, Code.InvalidArgument);
  const full = await answerOf(refused("max_sandboxes"));
  assert.deepEqual([full.status, full.again], [429, true]);
  assert.equal(connectError(refused("max_sandboxes")).code, Code.ResourceExhausted);
});

test("a user that the image has not is told by every way", async () => {
  const users = await Users.read(
    { readFile: async () => Buffer.from("user:x:1000:1000::/home/user:/bin/sh\n") } as never,
    {},
  );
  const unknown = await Promise.try(() => users.find("nobody-here")).catch((error) => error);
  assert.deepEqual(await answerOf(unknown), { status: 401, again: false, message: "invalid username: 'nobody-here'" });
  assert.equal(connectError(unknown).code, Code.Unauthenticated);
});
