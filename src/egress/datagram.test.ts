import assert from "node:assert/strict";
import { test } from "node:test";
import { readDatagram, writeDatagram } from "./datagram.ts";

test("a datagram is read as it was written, of either family", () => {
  const payload = Buffer.from("payload");
  for (const [one, other] of [
    ["198.19.255.254", "203.0.113.9"],
    ["fd53:7461:6379::1", "2001:2::1a2b"],
    ["::1", "::"],
    ["1:2:3:4:5:6:7:8", "2001:db8::"],
  ] as const) {
    const datagram = { kind: 0, guest: { address: one, port: 40_000 }, other: { address: other, port: 53 }, payload };
    assert.deepEqual(readDatagram(writeDatagram(datagram)), datagram);
  }
});

test("its bytes are those of the protocol's page", () => {
  const datagram = {
    ...{ kind: 1, guest: { address: "1.2.3.4", port: 0x0102 }, other: { address: "2001:db8::5", port: 3 } },
    payload: Buffer.from("ab"),
  };
  assert.equal(
    writeDatagram(datagram).toString("hex"),
    `0200010000000000000000000000ffff01020304${"0201"}20010db8000000000000000000000005${"0300"}6162`,
  );
});
