import assert from "node:assert/strict";
import { test } from "node:test";
import { Names } from "./names.ts";

test("each name has one address, which leads back to it, and another instance gives the same", () => {
  const [one, other] = [new Names(), new Names()];
  const seen = new Set<string>();
  for (let i = 0; i < 5_000; i++) {
    const name = `host-${i}.example`;
    const address = one.address(name);
    assert.ok(!seen.has(address), `${address} stands for two names`);
    seen.add(address);
    assert.equal(one.name(address), name);
    assert.equal(one.name(one.address(name, 6)), name);
    assert.equal(one.address(name), address);
  }
  assert.equal(other.address("host-1.example"), one.address("host-1.example"));
});

test("a program that asks for names without end loses the oldest, and takes no more memory", () => {
  const names = new Names();
  const kept = names.address("kept.example");
  const first = names.address("first.example");
  for (let i = 0; i < 16_400; i++) {
    names.address(`host-${i}.example`);
    names.address("kept.example");
  }
  assert.equal(names.name(kept), "kept.example");
  assert.notEqual(names.name(first), "first.example");
});

test("addresses that are none of ours stand for no name", () => {
  const names = new Names();
  names.address("a.example");
  for (const address of ["198.18.0.0", "198.19.0.1", "127.0.0.1", "::1", "2001:2::", "2001:2::1:1", "198.18", ""]) {
    assert.equal(names.name(address), undefined, address);
  }
});
