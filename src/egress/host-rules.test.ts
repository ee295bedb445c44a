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
]) {
  test(`${JSON.stringify(rule)} is refused with a remedy`, () => {
    assert.throws(
      () => new HostRules([rule]),
      (error) => error instanceof StacyError && error.code === "invalid" && error.remedy !== undefined,
    );
  });
}
