import assert from "node:assert/strict";
import { test } from "node:test";
import { Addresses } from "./addresses.ts";

const nothing = (): Set<string> => new Set();

test("public addresses may be reached", () => {
  const addresses = new Addresses([], nothing);
  for (const address of [
    "1.1.1.1",
    "203.0.113.80",
    "2606:4700::1111",
    "64:ff9b::101:101",
    "168.63.129.17",
    "2001:db8::5efe:1.1.1.1",
    "2001:db8::5eff:a00:1",
  ]) {
    assert.ok(addresses.permit(address), address);
  }
});

test("private, local, shared, reserved and disguised addresses may not", () => {
  const addresses = new Addresses([], nothing);
  for (const address of [
    "0.0.0.0",
    "10.1.2.3",
    "100.100.1.1",
    "127.0.0.1",
    "127.8.9.1",
    "169.254.169.254",
    "172.31.0.1",
    "192.168.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::7f00:1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::1",
    "fd00::1",
    "fe80::1",
    "ff02::1",
    "168.63.129.16",
    "192.88.99.1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:10.0.0.1",
    "2001:db8::5efe:10.0.0.1",
    "2001:db8::200:5efe:127.0.0.1",
    "fe80::5efe:1.1.1.1",
    "5f00::1",
    "100:0:0:1::5",
  ]) {
    assert.ok(!addresses.permit(address), address);
  }
});

test("the host's own addresses may not, also public ones", () => {
  const addresses = new Addresses([], () => new Set(["198.51.100.4", "2001:db8::4"]));
  assert.ok(!addresses.permit("198.51.100.4"));
  assert.ok(!addresses.permit("::ffff:198.51.100.4"));
  assert.ok(!addresses.permit("2001:db8::4"));
  assert.ok(addresses.permit("198.51.100.5"));
});

test("the operator opens an address or a range", () => {
  const addresses = new Addresses(["10.1.0.0/16", "127.0.0.1", "fd12::/16"], nothing);
  assert.ok(addresses.permit("10.1.255.1"));
  assert.ok(addresses.permit("127.0.0.1"));
  assert.ok(addresses.permit("::ffff:127.0.0.1"));
  assert.ok(addresses.permit("fd12::9"));
  assert.ok(!addresses.permit("10.2.0.1"));
  assert.ok(!addresses.permit("127.0.0.2"));
});

for (const entry of ["10.0.0", "10.0.0.0/33", "10.0.0.0/x", "::/129", "example.com", ""]) {
  test(`${JSON.stringify(entry)} is not an address`, () => {
    assert.throws(() => new Addresses([entry]), { code: "invalid" });
  });
}
