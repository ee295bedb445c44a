import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { isGuests, rememberGuests } from "../host/guest-sockets.ts";
import { Access } from "./access.ts";
import type { Identity } from "./identity.ts";
import type { Keys } from "./keys.ts";
import type { Tokens } from "./tokens.ts";

const access = (peer: (socket: Socket) => Promise<number | undefined>): Access =>
  new Access({ configured: [], keys: {} as Keys, ownUser: true, peer });

test("a connection whose user could not be looked up is looked at again; one that is known is not", async () => {
  const answers: (() => Promise<number | undefined>)[] = [
    () => Promise.reject(new StacyError("unavailable", "too many open files")),
    async () => undefined,
    async () => process.getuid?.(),
  ];
  let asked = 0;
  const users = access(() => (answers[asked++] as () => Promise<number | undefined>)());
  const connection = {} as Socket;
  for (let refused = 0; refused < 2; refused++) {
    await assert.rejects(users.identifyUser(connection), { code: "permission" });
  }
  assert.equal((await users.identifyUser(connection)).name, "own user");
  assert.equal((await users.identifyUser(connection)).name, "own user");
  assert.equal(asked, 3);
});

test("requests at once ask once, and another user is told whom this server answers", async () => {
  let asked = 0;
  const users = access(async () => {
    asked += 1;
    return 65_534;
  });
  const connection = {} as Socket;
  const results = await Promise.allSettled([users.identifyUser(connection), users.identifyUser(connection)]);
  for (const result of results) {
    assert.match(String(result.status === "rejected" && result.reason), /not the user with uid 65534/);
  }
  assert.equal(asked, 1);
});

test("after many wrong keys of an address its tokens are good all the same: behind a proxy all have one", async () => {
  const alice = { name: "oidc:alice", owner: "acme" } as Identity;
  const tokens = { identify: async (token: string) => (token === "a.good.one" ? alice : undefined) } as Tokens;
  const users = new Access({
    configured: [],
    keys: { find: () => undefined } as unknown as Keys,
    tokens,
    ownUser: false,
  });
  for (let i = 0; i < 100; i++) await users.identify(`wrong${i}`, "10.0.0.9").catch(() => {});
  await assert.rejects(users.identify("wrong", "10.0.0.9"), { code: "limit" });
  assert.equal(await users.identify("a.good.one", "10.0.0.9"), alice);
  await assert.rejects(users.identify("a.bad.one", "10.0.0.9"), { code: "limit" });
});

test("a program of a guest that reaches this server through it is not the server's own user", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const users = new Access({ configured: [], keys: {} as Keys, ownUser: true });
    for (const guests of [false, true]) {
      const accepted = once(server, "connection") as Promise<[Socket]>;
      const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
      await once(client, "connect");
      if (guests) rememberGuests(client);
      const [socket] = await accepted;
      if (guests) await assert.rejects(users.identifyUser(socket), { code: "permission", message: /its sandboxes/ });
      else assert.ok((await users.identifyUser(socket)).scopes.has("admin"));
      client.destroy();
      await once(client, "close");
      assert.equal(isGuests(socket), false, "another connection may have that port");
      socket.destroy();
    }
  } finally {
    server.close();
  }
});
