/** Who asks for the changes of files has its answer when the guest watches, and not before: what it changes then is told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeApp } from "../../test/fake-app.ts";
import { StacyError } from "../host/error.ts";

async function watched(watch: object): Promise<{ answer: Promise<Response> }> {
  const { app, keys, sandboxes } = fakeApp();
  const { secret } = await keys.create({ name: "alice", owner: "alice", scopes: ["use"] }, "test");
  const { id, machine } = await sandboxes.spawn({ owner: "alice" });
  Object.assign(machine?.agent ?? {}, { watch });
  const path = `/api/v1/sandboxes/${id}/files/watch?path=/tmp`;
  const from = { incoming: { socket: { remoteAddress: "10.0.0.1" } } };
  // In an object: else it would be waited for here.
  return { answer: Promise.resolve(app.request(path, { headers: { "x-api-key": secret } }, from as never)) };
}

test("it is answered when the guest watches", async () => {
  const begin = Promise.withResolvers<() => void>();
  const { answer } = await watched(async function* (_path: string, { ready }: { ready: () => void }) {
    begin.resolve(ready);
    await new Promise(() => {});
    yield undefined;
  });
  const ready = await begin.promise;
  let answered = false;
  void answer.then(() => {
    answered = true;
  });
  for (let turns = 0; turns < 50; turns++) await new Promise((wake) => setImmediate(wake));
  assert.equal(answered, false, "the guest does not watch yet");
  ready();
  const { status, body } = await answer;
  const reader = body?.getReader();
  assert.deepEqual([status, String(Buffer.from((await reader?.read())?.value ?? []))], [200, ": watching\n\n"]);
});

test("what cannot be watched is an error, and no stream without an end", async () => {
  const { answer } = await watched(
    // biome-ignore lint/correctness/useYield: it fails before there is anything
    async function* () {
      throw new StacyError("limit", "more than 16384 directories to watch");
    },
  );
  assert.ok((await answer).status >= 400, String((await answer).status));
});
