/** Input that waits for guests that never read: every way in takes of one bound, and gives back what it took. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeApp } from "../../test/fake-app.ts";
import { HeldInput } from "../guest/held-input.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";

const MIB = 2 ** 20;
const half = GUEST_BOUNDS.inputBytes / 2;

/** Nothing is held any more. */
function assertFree(owner: string): void {
  using all = new HeldInput(owner);
  all.add(half);
}

test("input of programs that never read has one bound, whichever way it comes, and others' calls go on", async () => {
  const { app, keys, sandboxes } = fakeApp();
  const { secret } = await keys.create({ name: "alice", owner: "alice", scopes: ["use"] }, "test");
  const { secret: bobs } = await keys.create({ name: "bob", owner: "bob", scopes: ["use"] }, "test");
  let ended = Promise.withResolvers<void>();
  const process = { id: "1", pid: 1, running: true, command: "cat", startedAt: 0 };
  const agent = {
    exec: async ({ stdin }: { stdin?: Uint8Array }) => {
      if (stdin !== undefined && stdin.length > 1) await ended.promise;
      return { exitCode: 0, reason: "exited", stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), truncated: false };
    },
    start: async () => ({
      ...{ id: "1", pid: 1, exited: ended.promise.then(() => ({ exitCode: 0, reason: "exited" })) },
      output: async function* () {
        await ended.promise;
        yield* [];
      },
    }),
    processes: async () => [process],
    attach: async () => ({
      ...{ id: "1", pid: 1, exited: new Promise(() => {}), detach: async () => {}, closeStdin: async () => {} },
      write: () => ended.promise,
      output: async function* () {
        await ended.promise;
        yield* [];
      },
    }),
  };
  const spawn = async (owner: string): Promise<string> => {
    const { id, machine } = await sandboxes.spawn({ owner });
    Object.assign(machine?.agent ?? {}, agent);
    return id;
  };
  const [hers, his] = [await spawn("alice"), await spawn("bob")];
  const ask = async (key: string, path: string, body: Buffer | string, more: Record<string, string> = {}) =>
    app.request(
      path,
      { method: "POST", body, headers: { "x-api-key": key, "content-type": "application/json", ...more } } as never,
      { incoming: { socket: { remoteAddress: "10.0.0.1" } } } as never,
    );
  const api = "/api/v1/sandboxes";
  const stdin = "x".repeat(40 * MIB);
  const run = (key: string, id: string, input: string, stream = false) =>
    ask(key, `${api}/${id}/exec`, JSON.stringify({ command: "cat", mode: "shell", stdin: input, stream }));
  const base64 = Buffer.alloc(10 * MIB).toString("base64");
  const ways: Record<string, [most: number, send: () => Promise<Response>]> = {
    exec: [3, () => run(secret, hers, stdin)],
    "exec, streamed": [3, () => run(secret, hers, stdin, true)],
    processes: [4, () => ask(secret, `${api}/${hers}/processes/1/stdin`, Buffer.alloc(32 * MIB))],
    "E2B's input": [
      13,
      () =>
        ask(secret, "/process.Process/SendInput", JSON.stringify({ process: { pid: 1 }, input: { stdin: base64 } }), {
          "e2b-sandbox-id": hers,
        }),
    ],
  };
  try {
    for (const [name, [most, send]] of Object.entries(ways)) {
      ended = Promise.withResolvers<void>();
      const sent: { status?: number }[] = [];
      const answers: Promise<void>[] = [];
      // One after another, each as soon as the one before waits in the guest or is answered.
      for (let i = 0; i < most + 2; i++) {
        const each: { status?: number } = {};
        sent.push(each);
        answers.push(
          send().then(async (response) => {
            each.status = response.status;
            await response.arrayBuffer();
          }),
        );
        for (let turn = 0; turn < 40; turn++) await new Promise((wake) => setTimeout(wake, 1));
      }
      const refused = (): number => sent.filter(({ status }) => status === 429).length;
      while (refused() === 0) {
        assert.ok(
          sent.some(({ status }) => status === undefined),
          `${name}: ${JSON.stringify(sent)}`,
        );
        await new Promise((wake) => setTimeout(wake, 5));
      }
      assert.ok(sent.length - refused() <= most, `${name}: ${JSON.stringify(sent)}`);
      // What another owner does, and what is short, has room.
      assert.equal((await run(bobs, his, "y")).status, 200, name);
      assert.equal((await run(secret, hers, "y")).status, 200, name);
      ended.resolve();
      await Promise.all(answers);
      assertFree("alice");
    }
  } finally {
    ended.resolve();
    await sandboxes.close({ destroy: true });
  }
});
