import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { HostRules } from "./host-rules.ts";

const permit = (rule: string, host: string, port = 443): boolean => new HostRules([rule]).permit(host, port);

test("a name stands for itself alone, on the ports of the web", () => {
  assert.ok(permit("pkg.example", "pkg.example", 443));
  assert.ok(permit("pkg.example", "PKG.example.", 80));
  assert.ok(!permit("pkg.example", "pkg.example", 22));
  assert.ok(!permit("pkg.example", "evil-pkg.example"));
  assert.ok(!permit("pkg.example", "pkg.example.evil.com"));
  assert.ok(!permit("pkg.example", "www.pkg.example"));
});

test("a star before a dot stands for every name below, and not for the name itself", () => {
  assert.ok(permit("*.pkgfiles.example", "files.pkgfiles.example"));
  assert.ok(permit("*.pkgfiles.example", "a.b.pkgfiles.example"));
  assert.ok(!permit("*.pkgfiles.example", "pkgfiles.example"));
  assert.ok(!permit("*.pkgfiles.example", "evilpkgfiles.example"));
});

test("a port stands for itself, a star for all of them", () => {
  assert.ok(permit("db.lan:5432", "db.lan", 5432));
  assert.ok(!permit("db.lan:5432", "db.lan", 443));
  assert.ok(permit("git.lan:*", "git.lan", 22));
  assert.ok(permit("*", "anything.at.all", 443));
  assert.ok(!permit("*", "anything.at.all", 25));
  assert.ok(permit("*:*", "anything.at.all", 25));
});

test("addresses and names in other scripts are compared in one form", () => {
  assert.ok(permit("192.0.2.7", "192.0.2.7", 80));
  assert.ok(permit("2001:DB8:0:0::7", "[2001:db8::7]", 443));
  assert.ok(permit("[2001:db8::7]:8080", "2001:db8::7", 8080));
  assert.ok(permit("bücher.example", "xn--bcher-kva.example"));
});

test("ranges of ports and of addresses, both ends included", () => {
  assert.ok(permit("db.lan:5432-5439", "db.lan", 5432) && permit("db.lan:5432-5439", "db.lan", 5439));
  assert.ok(!permit("db.lan:5432-5439", "db.lan", 5431) && !permit("db.lan:5432-5439", "db.lan", 5440));
  assert.ok(permit("192.0.2.0/24", "192.0.2.255") && !permit("192.0.2.0/24", "192.0.3.0"));
  assert.ok(permit("192.0.2.0/24:22", "192.0.2.1", 22) && !permit("192.0.2.0/24:22", "192.0.2.1", 443));
  assert.ok(permit("2001:db8::/32", "2001:db8:1::7") && !permit("2001:db8::/32", "2001:db9::7"));
  assert.ok(permit("[2001:db8::/32]:22", "[2001:db8::7]", 22) && !permit("[2001:db8::/32]:22", "2001:db8::7", 443));
  assert.ok(!permit("192.0.2.0/24", "pkg.example"), "names that resolve there are not meant");
});

test("a rule is for connections or, with /udp, for datagrams; a refusal is for both unless it says so", () => {
  const udp = (rules: string[], port: number): boolean => new HostRules(rules).permit("a.example", port, "udp");
  assert.ok(udp(["a.example:123/udp"], 123) && !udp(["a.example:123/udp"], 124) && udp(["a.example:*/udp"], 124));
  assert.ok(!permit("a.example:123/udp", "a.example", 123));
  for (const rule of ["a.example:123", "a.example:*", "*:*", "a.example"]) assert.ok(!udp([rule], 123), rule);
  for (const refusal of ["!a.example", "!a.example:123", "!a.example:1-200/udp"])
    assert.ok(!udp(["*:*/udp", refusal], 123), refusal);
  const both = new HostRules(["a.example:443", "a.example:443/udp", "!a.example:443/udp", "!10.0.0.0/8:53/udp"]);
  assert.ok(both.permit("a.example", 443) && !both.permit("a.example", 443, "udp"));
  assert.deepEqual(
    [both.refusal("10.0.0.1", 53, "udp"), both.refusal("10.0.0.1", 53), both.refusal("10.0.0.1")],
    ["!10.0.0.0/8:53/udp", undefined, undefined],
  );
  assert.ok(
    both.judgeHost("a.example").permitted && new HostRules(["a.example:1/udp"]).judgeHost("a.example").permitted,
  );
});

test("a refusal decides over everything that permits it, on every port unless it names one, and says which it was", () => {
  const rules = new HostRules(["*:*", "!evil.example", "!*.evil.example:443", "!10.0.0.0/8", "!mail.example:25"]);
  assert.deepEqual(rules.judge("Evil.example", 8080), { permitted: false, rule: "!evil.example" });
  assert.deepEqual(rules.judge("a.evil.example", 443), { permitted: false, rule: "!*.evil.example:443" });
  assert.ok(rules.permit("a.evil.example", 80) && rules.permit("mail.example", 443) && rules.permit("11.0.0.1", 22));
  for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "[::ffff:a01:203]"]) assert.ok(!rules.permit(address, 443));
  assert.equal(rules.refusal("10.1.2.3", 443), "!10.0.0.0/8");
  assert.equal(rules.refusal("11.1.2.3", 443), undefined);
  assert.ok(!rules.judgeHost("evil.example").permitted && rules.judgeHost("mail.example").permitted);
  assert.deepEqual(new HostRules(["a.example"]).judge("b.example", 443), { permitted: false });
  assert.ok(new HostRules(["!a.example"]).empty, "a refusal permits nothing");
});

test("a refused range is refused in IPv6 clothes too, in which a translator would connect to it; a permitted one is itself alone", () => {
  const rules = new HostRules(["*:*", "!203.0.113.0/24"]);
  const only = new HostRules(["203.0.113.0/24:*"]);
  for (const address of [
    ...["::ffff:203.0.113.7", "64:ff9b::203.0.113.7", "64:ff9b::cb00:7107", "::203.0.113.7", "::ffff:0:203.0.113.7"],
    "2001:db8::5efe:203.0.113.7",
  ]) {
    assert.deepEqual(rules.judge(address, 443), { permitted: false, rule: "!203.0.113.0/24" }, address);
    assert.deepEqual(rules.judgeHost(address), { permitted: false, rule: "!203.0.113.0/24" }, address);
    assert.equal(rules.refusal(address, 443), "!203.0.113.0/24", address);
    assert.equal(rules.refusal(address), "!203.0.113.0/24", address);
    if (!address.startsWith("::ffff:203")) assert.equal(only.permit(address, 443), false, address);
  }
  for (const address of ["64:ff9b::203.0.114.7", "2001:db8::203.0.113.7", "203.0.114.7"]) {
    assert.ok(rules.permit(address, 443), address);
    assert.equal(rules.refusal(address, 443), undefined, address);
  }
});

test("a group stands for its rules, to permit and to refuse", () => {
  const groups = { lan: ["db.lan:5432", "10.0.0.0/8:22"] };
  const rules = new HostRules(["@lan"], groups);
  assert.deepEqual(rules.judge("db.lan", 5432), { permitted: true, rule: "@lan (db.lan:5432)" });
  assert.ok(rules.permit("10.9.9.9", 22) && !rules.permit("db.lan", 443));
  assert.deepEqual(rules.list, ["@lan"]);
  assert.ok(!new HostRules(["*:*", "!@lan"], groups).permit("db.lan", 5432));
  assert.ok(new HostRules(["@pypi", "@npm", "@debian", "@github"]).permit("github.com", 22));
  assert.throws(() => new HostRules(["@nowhere"]), /no such group/);
});

test("whether rules stay within others, host by host and port by port", () => {
  const beyond = (own: string[], within: string[]): string | undefined =>
    new HostRules(own).beyond(new HostRules(within));
  for (const [own, within] of [
    [["a.example", "a.example:8080"], ["a.example:*"]],
    [["a.example"], ["a.example:80", "a.example:443"]],
    [["b.a.example", "*.b.a.example", "*.a.example"], ["*.a.example"]],
    [["10.1.2.3:22", "10.1.0.0/16:20-22"], ["10.0.0.0/8:1-100"]],
    [["@pypi", "x.example:1"], ["*:*"]],
    [["!evil.example"], []],
    [["a.example:123/udp"], ["*.example:1-200/udp"]],
  ] as const)
    assert.equal(beyond([...own], [...within]), undefined, own.join());
  for (const [own, within] of [
    [["a.example"], ["a.example:443"]],
    [["a.example:*"], ["a.example:1-65534"]],
    [["a.example"], ["*.a.example"]],
    [["*.a.example"], ["a.example", "b.a.example"]],
    [["*"], ["*.example"]],
    [["10.0.0.0/7"], ["10.0.0.0/8"]],
    [["::ffff:10.0.0.0/104"], ["10.0.0.0/8"]],
    [["10.0.0.1"], ["*.example"]],
    [["a.example"], []],
    [["a.example"], ["!a.example"]],
    [["host.stacyvm:80"], ["*:*"]],
    [["a.example:123/udp"], ["*:*"]],
    [["a.example:123"], ["*:*/udp"]],
  ] as const)
    assert.equal(beyond([...own], [...within]), own[0], own.join());
});

test("no rule permits nothing", () => {
  assert.ok(new HostRules([]).empty);
  assert.ok(!new HostRules([]).permit("pkg.example", 443));
});

for (const rule of [
  "",
  " ",
  "http://pkg.example",
  "pkg.example:0",
  "pkg.example:99999",
  "pkg.example:x",
  "*.*",
  "a*b.org",
  "*.1.2.3.4",
  "a b",
  "x/y",
  "-",
  "pkg.example:443:443",
  "pkg.example:90-80",
  "pkg.example:1-70000",
  "pkg.example:-80",
  "10.0.0.0/33",
  "10.0.0.0/8/8",
  "10.0.0.0/",
  "[10.0.0.0/x]:80",
  "@",
  "!",
  "!!a.example",
  "a.example/udp",
  "a.example:/udp",
  "a.example:53/tcp",
]) {
  test(`${JSON.stringify(rule)} is refused with a remedy`, () => {
    assert.throws(
      () => new HostRules([rule]),
      (error) => error instanceof StacyError && error.code === "invalid" && error.remedy !== undefined,
    );
  });
}

test("only a rule that names the server's own host means it, and only a group that somebody made is one", () => {
  assert.ok(permit("host.stacyvm:11434", "host.stacyvm", 11434));
  assert.ok(!permit("*.stacyvm:11434", "host.stacyvm", 11434) && !permit("*:*", "host.stacyvm", 11434));
  assert.ok(!new HostRules(["host.stacyvm:1", "!*.stacyvm"]).permit("host.stacyvm", 1));
  for (const name of ["constructor", "__proto__", "toString"])
    assert.throws(() => new HostRules([`@${name}`]), /there is no such group/);
});

test("a list has a bound, to which the rules of its groups count", () => {
  const group = { many: Array.from({ length: 1_000 }, (_, i) => `${i}.example`) };
  assert.equal(new HostRules(Array(10).fill("@many"), group).permit("999.example", 443), true);
  for (const list of [[...Array(10).fill("@many"), "a.example"], Array(174_000).fill("::1")]) {
    assert.throws(
      () => new HostRules(list, group),
      (error) => error instanceof StacyError && error.code === "invalid" && /more than 10000 hosts/.test(error.message),
    );
  }
});
