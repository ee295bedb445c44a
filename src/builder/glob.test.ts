/** Patterns whose work would grow by a power with each star. What they mean, patterns.test.ts and read-plan.test.ts say. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import { plainConfig } from "../images/content.ts";
import { configAfter } from "./configuration.ts";
import { ignoreRules } from "./ignore.ts";
import { namePattern } from "./match.ts";
import { readPlan } from "./read-plan.ts";

/** By the time that this thread has had, however busy the host is. */
function soon(act: () => void): void {
  const begun = process.threadCpuUsage();
  act();
  const { user, system } = process.threadCpuUsage(begun);
  assert.ok(user + system < 5_000_000, `${(user + system) / 1_000} ms`);
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
  soon(() => assert.throws(() => namePattern(`${"*a".repeat(65)}`), { code: "limit" }));
  soon(() => assert.throws(() => namePattern(`*${"a".repeat(512)}`), { code: "limit" }));
  const looking = namePattern(stars).steps(name);
  for (let steps = 0; steps < 50; steps++) assert.equal(looking.next().done, false, "others are served between");
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

test("a short Dockerfile cannot make a variable endless, however it names it", () => {
  for (const [value, times, use] of [
    [60_000, 60_000, "$A"],
    [60_000, 10_000, `\${A%}`],
    [60_000, 10_000, `\${A#b}`],
    [60_000, 10_000, `\${A/b}`],
    [60_000, 10_000, `\${A:-b}`],
  ] as const) {
    const text = `FROM x\nENV A=${"a".repeat(value)}\nLABEL b=${use.repeat(times)}`;
    soon(() => assert.throws(() => readPlan(text), { code: "limit", message: /become too long/ }, use));
  }
});

test("what is there already costs no later step anything, and a stage has so many steps", () => {
  const base = { ...plainConfig(), onBuild: [] };
  const done = (text: string): unknown => readPlan(text).stages.map((stage) => configAfter(base, stage.steps(base)));
  const names = (many: number, line: number): string =>
    Array.from({ length: many }, (_, i) => `a${line}_${i}=1`).join(" ");
  const lines = (many: number, line: (i: number) => string): string =>
    `FROM x\n${Array.from({ length: many }, (_, i) => `${line(i)}\n`).join("")}`;
  for (const fits of [
    `FROM x\nENV ${names(18_000, 0)}`,
    lines(900, (i) => `ENV ${names(25, i)}`),
    lines(900, (i) => `EXPOSE ${i} ${`${i}/udp `.repeat(20)}`),
    lines(900, (i) => `VOLUME ${`/${i}/a `.repeat(20)}`),
    lines(900, () => `ONBUILD RUN ${"a".repeat(200)}`),
    lines(1_000, () => "WORKDIR a"),
  ])
    soon(() => done(fits));
  for (const [many, why] of [
    [lines(1_001, () => "USER a"), /more than 1000 instructions/],
    [lines(490, (i) => `ARG ${names(25, i)}\nRUN x`), /become too long/],
    [`FROM x\nARG ${names(20_000, 0)}\n${"ARG b=1\n".repeat(400)}`, /become too long/],
    [`FROM x\nARG ${names(20_000, 0)}\n${"ENV a0_1=1\nARG a0_1=1\n".repeat(400)}`, /become too long/],
    [`FROM x AS s\nENV ${names(20_000, 0)}\n${"FROM s AS s\n".repeat(100)}`, /become too long/],
    [`FROM x\nSHELL ["${"a".repeat(200_000)}"]\n${"RUN a\n".repeat(900)}`, /become too long/],
  ] as const)
    soon(() => assert.throws(() => done(many), { code: "limit", message: why }));
  const triggers = { ...base, onBuild: Array.from({ length: 1_001 }, () => "RUN a") };
  assert.throws(() => readPlan("FROM x").stages[0]?.steps(triggers), { code: "limit" });
  soon(() => assert.throws(() => done(lines(900, () => `WORKDIR ${"a/".repeat(100)}`)), { code: "invalid" }));
});

test("many stages on one another are read once each", () => {
  const chain = Array.from(
    { length: 250 },
    (_, i) => `FROM ${i === 0 ? "x" : `s${i - 1}`} AS s${i}\n${"RUN x\n".repeat(60)}`,
  );
  const { stages } = readPlan(chain.join(""));
  const base = plainConfig();
  soon(() =>
    assert.equal(
      stages.reduce((sum, stage) => sum + stage.steps(base).length, 0),
      250 * 60,
    ),
  );
});

test("a declarative file that is too long or too deep is refused", () => {
  assert.throws(() => readPlan(`from: x\nsteps:\n${"  - run: a\n".repeat(10_000)}`), { code: "limit" });
  const begin = "from: x\nsteps:\n  - run: a\n";
  for (const unit of ["[", "- ", "? ", "-\t", "&a ", "!a ", "- [a] ", "*a,"]) {
    const text = `${begin}  ${unit.repeat(30_000 / unit.length)}`;
    soon(() => assert.throws(() => readPlan(text), { code: "invalid" }, unit));
  }
  const keys = (many: number): string => Array.from({ length: many }, (_, i) => `a${i}: 1`).join(", ");
  soon(() => assert.equal(readPlan(`from: x\nenv: {${keys(5_000)}}`).stages.length, 1));
  assert.throws(() => readPlan("from: x\nenv: {a: 1,\n  a: 2}"), {
    code: "invalid",
    message: /line 3: the key a is there twice/,
  });
});

test("long runs of spaces take no time", () => {
  soon(() => readPlan(`FROM x\nRUN a${" ".repeat(200_000)}b\n`));
  const declarative = `from: x\nworkdir: a\n${" ".repeat(60_000)}b\n`;
  soon(() => assert.throws(() => readPlan(declarative), { code: "invalid", message: /256 blanks in a row/ }));
  assert.equal(readPlan(`from: x\nsteps:\n- run: |\n    a${" ".repeat(256)}b\n`).stages.length, 1);
  soon(() => readPlan(`# escape =${" ".repeat(200_000)}\\ \nFROM x\n`.replace("\\ ", "\\")));
});
