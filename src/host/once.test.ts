import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { type TestContext, test } from "node:test";
import { replaceFs } from "../../test/replace-fs.ts";
import { StacyError } from "./error.ts";
import { hostIdentity } from "./host-identity.ts";
import { once } from "./once.ts";
import { runTool } from "./run.ts";
import { isShortage, unlessShort, wasEnded } from "./shortage.ts";
import { tscKhz } from "./tsc.ts";

test("work is done once, for those who wait and those who come later; what failed is done again", async () => {
  let calls = 0;
  const results = [new Error("no"), undefined];
  const get = once(async () => {
    calls += 1;
    const result = results.shift();
    if (result !== undefined) throw result;
    return calls;
  });
  const both = await Promise.allSettled([get(), get()]);
  assert.deepEqual([both.map(({ status }) => status), calls], [["rejected", "rejected"], 1]);
  assert.deepEqual([await Promise.all([get(), get()]), await get(), calls], [[2, 2], 2, 2]);
});

/** The next read of that file fails, as for want of descriptors. */
function failRead(t: TestContext, path: string): void {
  const { readFile } = fs;
  const restore = replaceFs(t, "readFile", async (file: string, ...more: []) => {
    if (file !== path) return readFile(file, ...more);
    restore();
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  });
}

for (const [what, ask] of Object.entries({ "the counter's frequency": tscKhz, "what the host is": hostIdentity })) {
  test(`${what} is asked for again after the host had no descriptor for it`, async (t) => {
    failRead(t, "/proc/cpuinfo");
    const first = await ask().catch((error: unknown) => error);
    // Where the kernel says the frequency itself the processor is not asked.
    if (first instanceof Error) assert.match(first.message, /EMFILE/);
    await ask();
  });
}

test("a shortage is told from an answer, also where it is only the cause", async () => {
  const system = (code: string): Error => Object.assign(new Error(code), { code });
  assert.equal(isShortage(new StacyError("unavailable", "x", { cause: system("EMFILE") })), true);
  assert.equal(isShortage(new StacyError("no-space", "x")), true);
  for (const answer of [system("ENOENT"), system("EACCES"), new StacyError("unavailable", "x"), undefined])
    assert.equal(isShortage(answer), false);
  assert.equal(unlessShort(1)(system("ENOENT")), 1);
  assert.throws(() => unlessShort(1)(system("ENOMEM")), /ENOMEM/);
});

test("a program that was ended did not answer; one that refuses, or is not there, did", async () => {
  assert.equal(await runTool("sleep", ["60"], { timeoutMs: 1 }).catch(wasEnded), true);
  for (const judge of [wasEnded, isShortage])
    for (const command of ["false", "no-such-program"]) assert.equal(await runTool(command, []).catch(judge), false);
});
