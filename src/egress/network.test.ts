import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_NETWORK, groupsOf, Network } from "./network.ts";

test("a port of the server's host is given only where the operator has named it", () => {
  const network = new Network({ ...DEFAULT_NETWORK, hostPorts: [5432] });
  assert.deepEqual(network.rules(["host.stacyvm:5432", "*:*"]).list, ["host.stacyvm:5432", "*:*"]);
  for (const rule of ["host.stacyvm:22", "host.stacyvm", "HOST.stacyvm.:*", "host.stacyvm:5431-5433"])
    assert.throws(() => network.rules([rule]), /no such port of its host/, rule);
  assert.throws(() => new Network().rules(["host.stacyvm:5432"]), /no such port/);
});

test("groups of the configuration stand beside the built-in ones, and are looked at when the server starts", () => {
  const network = new Network({ ...DEFAULT_NETWORK, groups: { lan: ["db.lan:5432"], pypi: ["mirror.lan"] } });
  assert.ok(
    network.rules(["@lan"]).permit("db.lan", 5432) && network.rules(["@npm"]).permit("registry.npmjs.org", 443),
  );
  assert.ok(!network.rules(["@pypi"]).permit("pypi.org", 443) && network.rules(["@pypi"]).permit("mirror.lan", 443));
  for (const groups of [{ a: ["@b"] }, { a: ["!x.example"] }, { "A b": [] }, { a: ["http://x"] }] as Record<
    string,
    string[]
  >[])
    assert.throws(() => groupsOf(groups), { code: "invalid" });
});
