import assert from "node:assert/strict";
import { test } from "node:test";
import { PullTurns } from "./pull-turns.ts";

const none = { signal: undefined, progress: undefined };
const after = (): Promise<void> => new Promise((wake) => setImmediate(wake));

test("a pull that takes longer than an hour ends, and its place is free", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const turns = new PullTurns<string>();
  const hangs = (signal: AbortSignal): Promise<string> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("it hung"))));
  const first = ["1", "2"].map((name) => turns.run(name, "missing", { party: "a", ...none }, hangs));
  const steps: string[] = [];
  const progress = ({ step }: { step: string }): unknown => steps.push(step);
  const third = turns.run("3", "missing", { ...none, party: "a", progress }, async () => "third");
  t.mock.timers.tick(3_599_999);
  t.mock.timers.tick(1);
  for (const each of first) await assert.rejects(each, { code: "timeout", remedy: /layers that have come are kept/ });
  assert.equal(await third, "third");
  assert.deepEqual(steps, ["waiting for other pulls (1 of yours)"]);
});

test("one image that many wait for takes one place, and all hear of its pull", async () => {
  const turns = new PullTurns<string>();
  const ends = new Map<string, (result: string) => void>();
  const steps: string[] = [];
  const pull = (name: string, party: string, signal?: AbortSignal): Promise<string> =>
    turns.run(
      name,
      "missing",
      { party, signal, progress: ({ step }) => steps.push(`${party}: ${step}`) },
      (_, progress) => {
        assert.ok(!ends.has(name), `${name} twice`);
        progress({ step: `pulling ${name}` });
        return new Promise((resolve) => ends.set(name, resolve));
      },
    );
  const one = ["a", "a", "a", "b", "c", "d", "e"].map((party) => pull("one", party));
  const other = ["a", "b", "c"].map((party, i) => pull(`other ${i}`, party));
  await after();
  assert.deepEqual([...ends.keys()], ["one", "other 0", "other 1", "other 2"], "four at a time, the one image once");
  assert.ok(steps.includes("a: pulling one") && steps.includes("e: waiting for another pull or build of one"));
  ends.get("one")?.("it");
  assert.deepEqual(new Set(await Promise.all(one)), new Set(["it"]));
  for (const end of ends.values()) end("other");
  await Promise.all(other);
});

test("who throws at what is told leaves alone: at its begin, on the way, while it waits", async () => {
  const turns = new PullTurns<string>();
  const { promise, resolve } = Promise.withResolvers<string>();
  let told = (_step: string): void => {};
  const work = (_: AbortSignal, progress: (progress: { step: string }) => void): Promise<string> => {
    told = (step) => progress({ step });
    return promise;
  };
  const heard: string[] = [];
  const throws = (): void => {
    throw new Error("its connection is gone");
  };
  const pull = (progress: (progress: { step: string }) => void): Promise<string> =>
    turns.run("one", "missing", { party: "a", signal: undefined, progress }, work);
  const first = pull(throws);
  const good = pull(({ step }) => heard.push(step));
  const joins = pull(throws);
  await assert.rejects(joins, /connection is gone/);
  told("pulling");
  await assert.rejects(first, /connection is gone/);
  told("pulling more");
  resolve("it");
  assert.equal(await good, "it");
  assert.deepEqual(heard.slice(-2), ["pulling", "pulling more"]);
});

test("one that nobody can be told of any more is cancelled", async () => {
  const turns = new PullTurns<string>();
  const progress = (): void => {
    throw new Error("its connection is gone");
  };
  let cancelled = false;
  const only = turns.run("one", "missing", { party: "a", signal: undefined, progress }, (signal, tell) => {
    signal.addEventListener("abort", () => (cancelled = true));
    tell({ step: "pulling" });
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  });
  await assert.rejects(only, /connection is gone/);
  assert.ok(cancelled);
});

test("whoever has a turn first pulls for those who wait longer for theirs, and goes on for them when its caller leaves", async () => {
  const turns = new PullTurns<string>();
  const ends: ((result: string) => void)[] = [];
  const begun: string[] = [];
  const pull = (name: string, party: string, signal?: AbortSignal): Promise<string> =>
    turns.run(name, "missing", { party, signal, progress: undefined }, (cancelled) => {
      begun.push(name);
      cancelled.addEventListener("abort", () => begun.push(`${name} cancelled`));
      return new Promise((resolve) => ends.push(resolve));
    });
  const many = ["1", "2", "3"].map((name) => pull(name, "a"));
  const late = pull("3", "a");
  const gone = new AbortController();
  const early = pull("3", "b", gone.signal);
  await after();
  assert.deepEqual(begun, ["1", "2", "3"], "by the turn of b");
  gone.abort(new Error("it left"));
  await assert.rejects(early, /it left/);
  for (const end of ends) end("done");
  assert.deepEqual(await Promise.all([...many, late]), ["done", "done", "done", "done"]);
  assert.deepEqual(begun, ["1", "2", "3"]);
});

test("one that nobody waits for any longer is not begun, and begins anew for who comes then", async () => {
  const turns = new PullTurns<string>();
  const ends: (() => void)[] = [];
  const held = ["1", "2"].map((name) =>
    turns.run(name, "missing", { party: "a", ...none }, () => new Promise((resolve) => ends.push(() => resolve(name)))),
  );
  const gone = new AbortController();
  const never = turns.run("3", "missing", { ...none, party: "a", signal: gone.signal }, async () => assert.fail());
  await after();
  gone.abort(new Error("it left"));
  await assert.rejects(never, /it left/);
  const again = turns.run("3", "missing", { party: "a", ...none }, async () => "again");
  for (const end of ends) end();
  assert.deepEqual(await Promise.all([...held, again]), ["1", "2", "again"]);
});
