import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { peerUid, uidIn } from "./peer-uid.ts";

test("the row of the client's end counts, and not one that its program has closed", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 0100007F:1CFF 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 70001 1 0",
    "   1: 0100007F:D431 0100007F:1CFF 01 00000000:00000000 00:00000000 00000000  1001        0 70002 1 0",
    // What the kernel prints of a closed one that is still sending, or in TIME_WAIT: as if it were root's.
    "   2: 0100007F:D432 0100007F:1CFF 04 00000000:00000000 01:00000000 00000000     0        0 0 1 0",
    "",
  ].join("\n");
  assert.equal(uidIn(table, "0100007F:D431", "0100007F:1CFF"), 1001);
  assert.equal(uidIn(table, "0100007F:D432", "0100007F:1CFF"), undefined);
  assert.equal(uidIn(table, "0100007F:D433", "0100007F:1CFF"), undefined);
});

test("of real connections: IPv4, IPv6, and IPv4 by an IPv6 socket", async (t) => {
  for (const [listenOn, reach] of [
    ["127.0.0.1", "127.0.0.1"],
    ["127.0.0.1", "::ffff:127.0.0.1"],
    ["::", "127.0.0.1"],
    ["::1", "::1"],
  ] as const) {
    const server = createServer().listen(0, listenOn);
    try {
      await once(server, "listening");
    } catch {
      t.diagnostic(`${listenOn} is not there on this host`);
      continue;
    }
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const client = connect((server.address() as AddressInfo).port, reach);
    const [socket] = await accepted;
    assert.equal(await peerUid(socket), process.getuid?.(), `${reach} at ${listenOn}`);
    client.destroy();
    await once(socket.resume(), "close");
    // It has no addresses any more.
    assert.equal(await peerUid(socket), undefined);
    server.close();
  }
});
