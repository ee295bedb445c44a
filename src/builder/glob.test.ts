/** Patterns whose work would grow by a power with each star. What they mean, patterns.test.ts and read-plan.test.ts say. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { ignoreRules } from "./ignore.ts";
import { namePattern } from "./match.ts";
import { readPlan } from "./read-plan.ts";

function soon(act: () => void): void {
  const begun = performance.now();
  act();
  assert.ok(performance.now() - begun < 5_000, `${performance.now() - begun} ms`);
}

test("a pattern of many stars takes no time for the name that it nearly means", () => {
  const stars = `${"*a".repeat(40)}*b`;
  const name = "a".repeat(4_000);
  soon(() => assert.equal(namePattern(stars)(name), false));
  soon(() => assert.equal(namePattern(stars)(`${name}b`), true));
  soon(() => assert.equal(ignoreRules(`**/${stars}\n`)(`x/${name}`), false));
  soon(() => assert.equal(ignoreRules(`${"**/".repeat(40)}b`)(`${"a/".repeat(2_000)}c`), false));
  soon(() => assert.equal(ignoreRules(`${"**/".repeat(10_000)}b`)(`${"a/".repeat(2_000)}c`), false));
  soon(() => assert.equal(ignoreRules(`${"**/".repeat(10_000)}c`)(`${"a/".repeat(2_000)}c`), true));
  soon(() => assert.throws(() => ignoreRules(`${"*a".repeat(65)}`), { code: "limit" }));
  soon(() => assert.throws(() => ignoreRules(`**/${"a/".repeat(300)}b`), { code: "limit" }));
  soon(() => assert.equal(ignoreRules(`${"a/".repeat(300)}b`)(`${"a/".repeat(300)}b`), true));
  soon(() => readPlan(`FROM x\nENV A=${"a".repeat(4_000)}\nENV B=\${A#${stars}} C=\${A%${stars}} D=\${A/b*/}`));
});

test("a Dockerfile that would become endless is refused, and so is one that is too long", () => {
  const limit = (error: unknown): boolean => error instanceof StacyError && error.code === "limit";
  const twice = `FROM x\nENV A=aaaaaaaaaa\n${"ENV A=$A$A\n".repeat(60)}`;
  soon(() => assert.throws(() => readPlan(twice), limit));
  soon(() => assert.throws(() => readPlan(`FROM x\nENV A=${"a".repeat(50_000)}\nENV B=\${A//a*b/}`), limit));
  soon(() => assert.throws(() => readPlan(`FROM x\n${"FROM 0\n".repeat(1_000)}`), limit));
  soon(() => assert.throws(() => readPlan(`FROM x\nRUN ${"a".repeat(2 << 20)}`), limit));
  soon(() => assert.throws(() => ignoreRules("a\n".repeat(20_000)), limit));
  const deep = `${"${A:-".repeat(20_000)}${"}".repeat(20_000)}`;
  soon(() => assert.throws(() => readPlan(`FROM x\nENV B=${deep}`), { code: "invalid" }));
});

test("a declarative file that is too long or too deep is refused", () => {
  assert.throws(() => readPlan(`from: x\nsteps:\n${"  - run: a\n".repeat(10_000)}`), { code: "limit" });
  assert.throws(() => readPlan(`from: x\nsteps: ${"[".repeat(60_000)}`), { code: "invalid" });
});

test("long runs of spaces take no time", () => {
  soon(() => readPlan(`FROM x\nRUN a${" ".repeat(200_000)}b\n`));
  soon(() => readPlan(`# escape =${" ".repeat(200_000)}\\ \nFROM x\n`.replace("\\ ", "\\")));
});
