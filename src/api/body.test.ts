import assert from "node:assert/strict";
import { test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { HeldInput } from "../guest/held-input.ts";
import { JSON_BOUNDS } from "../host/bounds.ts";
import { bodyStream, readJson } from "./body.ts";

test("a body of too many values is refused in words of its own, whatever its length in bytes may be", async () => {
  const read = (body: string) =>
    readJson(
      new Request("http://x", { method: "POST", body }),
      { maxBytes: 0, timeoutMs: 60_000 },
      new HeldInput("owner"),
    );
  const values = (count: number) => `[${"[],".repeat(count)}0]`;
  await assert.rejects(read(values(JSON_BOUNDS.clientValues)), {
    code: "invalid",
    message: `the body is JSON of more than ${JSON_BOUNDS.clientValues} values`,
  });
  await assert.rejects(read("{"), { code: "invalid", message: "the body is not valid JSON" });
  assert.equal(((await read(values(1_000))) as unknown[]).length, 1_001);
});

const posted = (body: ReadableStream) =>
  new Request("http://x", { method: "POST", body, duplex: "half" } as RequestInit);

test("others have their turn while a body comes in any number of pieces", async () => {
  let left = 20_000;
  const body = new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(new Uint8Array(1));
      else controller.close();
    },
  });
  const end = countTurns();
  let pieces = 0;
  for await (const _ of bodyStream(posted(body), { maxBytes: 0, timeoutMs: 600_000 })) pieces += 1;
  assert.equal(pieces, 20_000);
  const turns = end();
  assert.ok(turns > 5, `${turns} turns`);
});

test("a client is given up for its own silence, and not for the time that its body is worked on", async () => {
  const silent = posted(new ReadableStream({ pull: () => new Promise(() => {}) }));
  await assert.rejects(bodyStream(silent, { maxBytes: 0, timeoutMs: 10 }).next(), { status: 408 });
  let left = 3;
  const ready = posted(
    new ReadableStream({
      pull(controller) {
        if (left-- > 0) controller.enqueue(new Uint8Array(1));
        else controller.close();
      },
    }),
  );
  let pieces = 0;
  for await (const _ of bodyStream(ready, { maxBytes: 0, timeoutMs: 10 })) {
    pieces += 1;
    await new Promise((wake) => setTimeout(wake, 30));
  }
  assert.equal(pieces, 3);
});
