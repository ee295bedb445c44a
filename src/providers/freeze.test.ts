import assert from "node:assert/strict";
import { test } from "node:test";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { Freeze } from "./freeze.ts";

/** A guest whose answers to `thaw` are these, one after the other; the last one stays. */
function guest(...answers: (() => Promise<void>)[]) {
  const counts = { thaws: 0, atOnce: 0, most: 0, thawed: 0, limits: [] as number[] };
  const over = new AbortController();
  const state = { runs: true };
  const limits = { answerMs: 15_000 };
  const agent = {
    freeze: async ({ limitMs }: { limitMs: number }) => void counts.limits.push(limitMs),
    thaw: async ({ limitMs }: { limitMs: number }) => {
      counts.limits.push(limitMs);
      const answer = answers[Math.min(counts.thaws++, answers.length - 1)];
      counts.most = Math.max(counts.most, ++counts.atOnce);
      try {
        await answer?.();
      } finally {
        counts.atOnce--;
      }
    },
  } as unknown as Agent;
  const thawed = (): void => void counts.thawed++;
  const freeze = new Freeze({
    agent,
    limitMs: () => limits.answerMs,
    runs: () => state.runs,
    thawed,
    over: over.signal,
  });
  return { freeze, counts, over, state, limits };
}

const lost = (): Promise<void> => Promise.reject(new StacyError("disconnected", "the channel broke"));
const fine = async (): Promise<void> => {};

test("the guest is asked to thaw until it confirms it", async () => {
  const { freeze, counts } = guest(lost, lost, fine);
  await freeze.freeze();
  await freeze.thaw();
  assert.deepEqual([counts.thaws, freeze.frozen], [3, false]);
  await freeze.thaw();
  assert.equal(counts.thaws, 3, "what was confirmed is not asked again");
});

test("those who wait for it wait for the same attempts, and a change that begins ends them first", async () => {
  const { freeze, counts } = guest(lost);
  await freeze.freeze();
  const waiting = [freeze.thaw(), freeze.thaw()];
  while (counts.thaws < 3) await new Promise((wake) => setImmediate(wake));
  await freeze.stopTrying();
  await Promise.all(waiting);
  const { thaws } = counts;
  assert.deepEqual([counts.most, freeze.frozen], [1, true]);
  await new Promise((wake) => setTimeout(wake, 120));
  assert.equal(counts.thaws, thaws, "nothing goes on beside the change");
});

test("a guest that cannot freeze has nothing to thaw; one that stands still is thawed by whoever brings it back", async () => {
  const unable = guest(() => Promise.reject(new StacyError("not-supported", "no cgroups")));
  await unable.freeze.freeze();
  await unable.freeze.thaw();
  assert.deepEqual([unable.counts.thaws, unable.freeze.frozen], [1, false]);
  const paused = guest(fine);
  await paused.freeze.freeze();
  paused.state.runs = false;
  await paused.freeze.thaw();
  assert.deepEqual([paused.counts.thaws, paused.freeze.frozen], [0, true]);
  paused.freeze.ended();
  assert.equal(paused.freeze.frozen, false);
});

test("that the guest goes on is told once, whoever waits for it", async () => {
  const answer = Promise.withResolvers<void>();
  const { freeze, counts } = guest(lost, () => answer.promise);
  await freeze.freeze();
  const waiting = [freeze.thaw(), freeze.thaw()];
  while (counts.thaws < 2) await new Promise((wake) => setImmediate(wake));
  assert.equal(counts.thawed, 0);
  answer.resolve();
  await Promise.all(waiting);
  await freeze.thaw();
  assert.deepEqual([counts.thawed, freeze.frozen], [1, false]);
});

test("each call of the guest, and the wait for it, is as long as the monitor says that a guest may take", async () => {
  const silent = guest(() => new Promise(() => {}));
  silent.limits.answerMs = 40;
  await silent.freeze.freeze();
  const begun = performance.now();
  await assert.rejects(silent.freeze.thaw(), { code: "timeout", phase: "freeze" });
  assert.ok(performance.now() - begun >= 75, "two attempts have room in it");
  assert.deepEqual(silent.counts.limits, [40, 40]);
  silent.over.abort();
});
