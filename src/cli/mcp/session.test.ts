import assert from "node:assert/strict";
import { test } from "node:test";
import { type Client, ConflictError, NotFoundError, type PullOptions, type Sandbox } from "../../../sdk/src/index.ts";
import { Call } from "./call.ts";
import { addSandboxTools } from "./sandbox-tools.ts";
import { instructions } from "./serve.ts";
import { Session } from "./session.ts";
import type { Tool, Tools } from "./tool.ts";

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
  const session = new Session(async () => client, OPTIONS, 20);
  // As soon as the client is there, before the model asks for anything.
  session.begin();
  await new Promise((wake) => setImmediate(wake));
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
  const session = new Session(async () => client, OPTIONS, 20);
  using call = callOf();
  await assert.rejects(
    session.use(undefined, call, async () => {}),
    /not ready yet/,
  );
  await session.end();
  assert.deepEqual(made, []);
});

test("a session that ends while there is no server yet waits for none, whatever the model has asked for", async () => {
  const none = (signal: AbortSignal): Promise<Client> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const session = new Session(none, OPTIONS, 20);
  using call = callOf();
  await assert.rejects(
    session.use(undefined, call, async () => {}),
    /not ready yet: starting the server/,
  );
  await session.end();
});

test("a sandbox that is none of the session's is refused with those that are", async () => {
  const { client } = slowServer();
  const session = new Session(async () => client, OPTIONS, 20);
  using call = callOf();
  await assert.rejects(
    session.use("sb-12345678", call, async () => {}),
    /has no sandbox sb-12345678; it has none\nnext: /,
  );
  await session.end();
});

/** A session that has taken in these: what each does is the test's. */
function sessionWith(...sandboxes: Partial<Sandbox>[]): Session {
  const session = new Session(async () => slowServer().client, OPTIONS, 20);
  sandboxes.forEach((sandbox, i) => {
    const info = { createdAt: "2026-01-01T00:00:00Z", expiresAt: "2026-01-01T01:00:00Z", state: "running", image: "x" };
    session.add({ id: `sb-0000000${i}`, info, destroy: async () => {}, ...sandbox } as Sandbox);
  });
  return session;
}

function toolOf(session: Session, name: string): (input: object) => Promise<unknown> {
  const all: Tool<never>[] = [];
  const tools = { add: (tool: Tool<never>) => void all.push(tool) };
  addSandboxTools(tools as unknown as Tools, session);
  return async (input) => {
    using call = callOf();
    return all.find((tool) => tool.name === name)?.work(input as never, call);
  };
}

test("one that has ended is left out of the list and forgotten; the others are listed", async () => {
  const refresh = async (): Promise<never> => ({}) as never;
  const gone = async (): Promise<never> => {
    throw new NotFoundError("NOT_FOUND", "gone", { status: 404 });
  };
  const session = sessionWith({ refresh }, { refresh: gone });
  assert.equal(await toolOf(session, "list_sandboxes")({}), "sb-00000000  running  x  network: none");
  assert.deepEqual(
    session.sandboxes.map(({ id }) => id),
    ["sb-00000000"],
  );
  await session.end();
});

test("a copy stays as long as what it is a copy of", async () => {
  let ttl: unknown;
  const fork: Sandbox["fork"] = async (options) => {
    ttl = options?.ttl;
    return [];
  };
  const session = sessionWith({ fork });
  await toolOf(session, "fork_sandbox")({ sandbox: "sb-00000000", count: 1 });
  assert.equal(ttl, OPTIONS.ttl);
  await session.end();
});

test("a sandbox stays from its last use on: renewed by uses, at most once a minute, again where that failed, and while work goes on", async (t) => {
  let now = 0;
  t.mock.method(performance, "now", () => now);
  t.mock.timers.enable({ apis: ["setInterval"] });
  const renewals: number[] = [];
  const session = sessionWith({
    extend: async () => {
      renewals.push(now);
      if (renewals.length === 1) throw new ConflictError("CONFLICT", "not now");
      return {} as never;
    },
  });
  using call = callOf();
  const use = (work = async () => {}): Promise<void> => session.use("sb-00000000", call, work);
  const step = async (ms: number): Promise<void> => {
    now += ms;
    t.mock.timers.tick(ms);
    await new Promise(setImmediate);
  };
  await use();
  now = 59_000;
  await use();
  now = 60_000;
  await use(); // fails
  await use();
  await use();
  assert.deepEqual(renewals, [60_000, 60_000]);
  await use(async () => {
    for (let i = 0; i < 3; i++) await step(60_000);
  });
  assert.deepEqual(renewals.slice(2), [120_000, 180_000, 240_000]);
  await step(600_000); // nobody uses it
  assert.equal(renewals.length, 5);
  await session.end();
});

test("a port has one listener however many ask for it at once, and none when the session or the sandbox ends meanwhile", async () => {
  const listeners = (): number => process.getActiveResourcesInfo().filter((kind) => kind === "TCPServerWrap").length;
  const before = listeners();
  const session = sessionWith({}, {});
  const [first, second] = session.sandboxes as [Sandbox, Sandbox];
  const [one, other] = await Promise.all([session.open(first, 80), session.open(first, 80)]);
  assert.equal(one, other);
  assert.equal(listeners(), before + 1);

  const opening = session.open(second, 80);
  await Promise.all([
    assert.rejects(opening, /sb-00000001 has ended, and its ports are closed\nnext: /),
    session.destroy(second.id),
  ]);
  await assert.rejects(session.open(second, 80), /has no sandbox sb-00000001/);

  const late = session.open(first, 81);
  late.catch(() => {});
  await session.end();
  await assert.rejects(late);
  await assert.rejects(session.open(first, 82), /the session has ended/);
  await new Promise(setImmediate); // a handle that is closed is gone in the next turn
  assert.equal(listeners(), before);
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
