import assert from "node:assert/strict";
import { test } from "node:test";
import { HostRules } from "../../egress/host-rules.ts";
import { hostsOf, networkOf } from "./network.ts";

const EVERYTHING = "0.0.0.0/0";

test("names mean the web, addresses and ranges all of their ports; they are told as they were said", () => {
  const allowOut = ["pkg.example", "*.below.example", "192.0.2.7", "198.51.100.0/24", "2001:db8::7", "2001:db8:1::/48"];
  const hosts = hostsOf({ allowOut, denyOut: [EVERYTHING] }, []) ?? [];
  const rules = new HostRules(hosts);
  const reach = (host: string, port: number) => rules.permit(host, port);
  assert.deepEqual(
    [reach("pkg.example", 443), reach("pkg.example", 22), reach("a.below.example", 80)],
    [true, false, true],
  );
  for (const address of ["192.0.2.7", "198.51.100.9", "2001:db8::7", "2001:db8:1::9"]) {
    assert.ok(reach(address, 22) && reach(address, 5432), address);
  }
  assert.ok(!reach("192.0.2.8", 22) && !reach("2001:db8::8", 22));
  assert.deepEqual(networkOf(hosts), { allowOut, denyOut: [EVERYTHING] });
});

test("what is refused is taken from what there is without a word; what is permitted beside it is all there is", () => {
  const byDefault = ["*"];
  const hosts = hostsOf({ denyOut: ["203.0.113.0/24", "2001:db8::/32", "bad.example"] }, byDefault) ?? [];
  const rules = new HostRules(hosts);
  assert.deepEqual(
    ["203.0.113.9", "2001:db8::1", "bad.example", "good.example"].map((host) => rules.permit(host, 443)),
    [false, false, false, true],
  );
  assert.deepEqual(networkOf(hosts).denyOut, ["203.0.113.0/24", "2001:db8::/32", "bad.example"]);
  assert.deepEqual(hostsOf({ denyOut: ["203.0.113.0/24"] }, []), [], "of nothing nothing is left");
  assert.deepEqual(hostsOf({ denyOut: [EVERYTHING] }, byDefault), []);
  assert.deepEqual(hostsOf({ allow_internet_access: false, allowOut: ["pkg.example"] }, byDefault), []);
  assert.equal(hostsOf({ allow_internet_access: true }, byDefault), undefined);
  const inside = new HostRules(hostsOf({ allowOut: ["203.0.113.9"], denyOut: ["203.0.113.0/24"] }, byDefault) ?? []);
  assert.deepEqual(
    [inside.permit("203.0.113.9", 80), inside.permit("203.0.113.8", 80), inside.permit("a.example", 80)],
    [true, false, false],
  );
  const beside = new HostRules(hostsOf({ allowOut: [EVERYTHING], denyOut: ["203.0.113.9"] }, []) ?? []);
  assert.deepEqual([beside.permit("203.0.113.9", 80), beside.permit("a.example", 80)], [false, true]);
  assert.deepEqual(networkOf(hostsOf({ allowOut: [EVERYTHING], denyOut: ["203.0.113.9"] }, []) ?? []), {
    ...{ allowOut: [EVERYTHING], denyOut: ["203.0.113.9"] },
  });
  assert.deepEqual(networkOf([]), { allowOut: [], denyOut: [EVERYTHING] }, "there is no way out");
});
