import assert from "node:assert/strict";
import { test } from "node:test";
import type { Client, PullOptions, Sandbox } from "../../../sdk/src/index.ts";
import { Call } from "./call.ts";
import { instructions } from "./serve.ts";
import { Session } from "./session.ts";

const OPTIONS = { image: "stacyvm/code", vcpus: 1, ttl: "1h" };

/** A server on which the image takes as long as the test says. */
function slowServer() {
  const pulled = Promise.withResolvers<void>();
  const made: string[] = [];
  const client = {
    images: {
      pull: (_reference: string, { onProgress, signal }: PullOptions) => {
        onProgress?.({ step: "writing the base disk", done: 1, total: 4 });
        signal?.addEventListener("abort", () => pulled.reject(signal.reason));
        return pulled.promise;
      },
    },
    create: async ({ image = "" }) => {
      made.push(image);
      const id = `sb-0000000${made.length}`;
      const info = { createdAt: "2026-01-01T00:00:00Z", expiresAt: "2026-01-01T01:00:00Z" };
      return { id, info, destroy: async () => {} } as unknown as Sandbox;
    },
  } as unknown as Client;
  return { client, made, pulled };
}

function callOf(send: (message: string) => void = () => {}): Call {
  const mcpReq = {
    signal: new AbortController().signal,
    _meta: { progressToken: 1 },
    notify: async ({ params }: { params: { message: string } }) => send(params.message),
  };
  return new Call({ mcpReq } as never);
}

test("an image that takes longer than a client waits: how far it is, and what to do; later calls find the same sandbox", async () => {
  const { client, made, pulled } = slowServer();
  const session = new Session(client, OPTIONS, 20);
  const news: string[] = [];
  using call = callOf((message) => news.push(message));
  const use = (): Promise<string> => session.use(undefined, call, async ({ id }) => id);
  for (let i = 0; i < 2; i++) {
    await assert.rejects(use(), {
      message:
        "the sandbox is not ready yet: preparing stacyvm/code: writing the base disk, 25 %\nnext: call this tool again in 30 seconds",
    });
  }
  assert.match(news[0] ?? "", /^preparing stacyvm\/code: writing the base disk, 25 % \(\d+ s\)$/);
  pulled.resolve();
  let id: string | undefined;
  while (id === undefined) id = await use().catch(() => undefined);
  assert.equal(id, "sb-00000001");
  assert.equal(await use(), id);
  assert.deepEqual(made, ["stacyvm/code"]);
  await session.end();
});

test("a session that ends while its image is made cancels that", async () => {
  const { client, made } = slowServer();
  const session = new Session(client, OPTIONS, 20);
  using call = callOf();
  await assert.rejects(
    session.use(undefined, call, async () => {}),
    /not ready yet/,
  );
  await session.end();
  assert.deepEqual(made, []);
});

test("a sandbox that is none of the session's is refused with those that are", async () => {
  const { client } = slowServer();
  const session = new Session(client, OPTIONS, 20);
  using call = callOf();
  await assert.rejects(
    session.use("sb-12345678", call, async () => {}),
    /has no sandbox sb-12345678; it has none\nnext: /,
  );
  await session.end();
});

test("the instructions say what there is of a network, what the image has, and what becomes of it", () => {
  assert.match(instructions(OPTIONS), /have no network: .*Only the user can change that.*--allow HOST/s);
  assert.match(instructions(OPTIONS), /stacyvm\/code: Debian with Python \(pip/);
  assert.match(instructions(OPTIONS), /Everything is removed when the session ends/);
  const other = instructions({ ...OPTIONS, image: "alpine", allow: ["pkg.example"], keep: true });
  assert.match(other, /can reach these hosts and no others: pkg\.example/);
  assert.match(other, /image is alpine\./);
  assert.match(other, /Sandboxes stay/);
});
