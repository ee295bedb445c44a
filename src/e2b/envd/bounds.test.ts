/** What a guest can make this server keep and do for E2B's clients. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { countTurns } from "../../../test/count-turns.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { filesystemService } from "./filesystem.ts";
import { EventType, FilesystemEventSchema } from "./gen/filesystem/filesystem_pb.ts";
import type { Guest } from "./guest.ts";
import { KeptChanges } from "./kept-changes.ts";
import { Users } from "./users.ts";

const change = (name: string) => create(FilesystemEventSchema, { type: EventType.WRITE, name });

test("all watchers of a sandbox keep what has one bound in bytes, the last changes of each", () => {
  const room = { left: 20 * 1_024 };
  const [long, short] = [new KeptChanges(room), new KeptChanges(room)];
  for (let i = 0; i < 1_000; i++) long.push(change(String(i).padStart(1_000, "x")));
  short.push(change("finds no room, and has nothing to drop"));
  const kept = long.take();
  assert.deepEqual(
    kept.map(({ name }) => Number(name.slice(-3))),
    Array.from({ length: kept.length }, (_, i) => 1_000 - kept.length + i),
  );
  assert.ok(kept.length > 4 && kept.length <= 10, String(kept.length));
  assert.equal(room.left, 20 * 1_024);
  for (let i = 0; i < 100_000; i++) short.push(change(`${i}`));
  assert.equal(short.take().at(-1)?.name, "99999");
  assert.deepEqual([short.take().length, long.take().length], [0, 0]);
});

test("a client that asks for changes has those, too, that are on their way from the guest; a directory that is never quiet does not keep it", async () => {
  const { signal } = new AbortController();
  const kept = new KeptChanges({ left: 1e6 });
  const settling = kept.settled(signal);
  setImmediate(() => kept.push(change("one")));
  setTimeout(() => kept.push(change("and another one after it")), 120);
  await settling;
  assert.deepEqual(
    kept.take().map(({ name }) => name),
    ["one", "and another one after it"],
  );
  const never = setInterval(() => kept.push(change("x")), 5);
  try {
    await kept.settled(signal);
    await assert.rejects(kept.settled(AbortSignal.abort()), { name: "AbortError" });
  } finally {
    clearInterval(never);
  }
});

test("a directory with more entries, or links, than are looked up at a stretch is refused with what to do", async () => {
  let entries: { kind: string }[] = [];
  const guest = {
    agent: {
      stat: async () => ({ kind: "directory" }),
      list: async () => entries.map(({ kind }, i) => ({ kind, path: `/d/${i}`, mode: 0, size: 0, mtimeMs: 0 })),
    },
    users: async () => ({ find: () => ({ home: "/" }) }),
    free: () => {},
  } as unknown as Guest;
  const { listDir } = filesystemService(async () => guest, new AbortController().signal);
  for (const [kind, most] of [
    ["file", E2B_BOUNDS.entries],
    ["symlink", E2B_BOUNDS.links],
  ] as const) {
    entries = Array.from({ length: most + 1 }, () => ({ kind }));
    const asked = listDir?.({ path: "/d", depth: 1 } as never, {} as HandlerContext);
    await assert.rejects(asked as Promise<unknown>, /has \d+ entries.*list its directories one by one/);
  }
});

test("users and groups are read to a bound", async () => {
  const limits: unknown[] = [];
  const agent = {
    readFile: async (_path: string, { limitBytes }: { limitBytes: number }) => {
      limits.push(limitBytes);
      throw new StacyError("not-found", "no such file");
    },
  };
  await Users.read(agent as never, {});
  assert.deepEqual(limits, [E2B_BOUNDS.userBytes, E2B_BOUNDS.userBytes]);
});

test("of many users each is found by name and number, the first of several; others have their turn while a directory is listed", async () => {
  const line = (i: number) => `u${i}:x:${i}:${i}::/home/u${i}\n`;
  const passwd = `${Array.from({ length: 2_000 }, (_, i) => line(i)).join("")}u7:x:9:9::/other\nlater:x:5:5::/\n`;
  const agent = {
    readFile: async (path: string) => Buffer.from(path === "/etc/passwd" ? passwd : ":x:\n".repeat(40_000)),
  };
  const users = await Users.read(agent as never, {});
  assert.deepEqual([users.find("u7").home, users.find("5").name, users.userName(1_999)], ["/home/u7", "u5", "u1999"]);
  const entries = Array.from({ length: E2B_BOUNDS.entries }, (_, i) => ({
    ...{ kind: "file", path: `/d/${(i * 7_919) % E2B_BOUNDS.entries}`, mode: 0o644, size: 1, mtimeMs: 1 },
    ...{ uid: 100_000 + i, gid: 100_000 + i },
  }));
  const guest = {
    agent: { stat: async () => ({ kind: "directory" }), list: async () => entries },
    users: async () => users,
    userName: "u7",
    free: () => {},
  } as unknown as Guest;
  const { listDir } = filesystemService(async () => guest, new AbortController().signal);
  const end = countTurns();
  const answer = (await listDir?.({ path: "/d", depth: 1 } as never, {} as HandlerContext)) as {
    entries: { path: string; owner: string }[];
  };
  const turns = end();
  assert.deepEqual(
    answer.entries.map(({ path }) => path),
    entries.map(({ path }) => path).sort(),
  );
  assert.equal(answer.entries[0]?.owner, "100000");
  assert.ok(turns > 5, `${turns} turns`);
});
