/** E2B's published JavaScript SDKs, unmodified, against a real server with real sandboxes. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Sdk, sandboxScenarios } from "./e2b-js-scenarios.ts";
import { Scenarios } from "./e2b-scenarios.ts";
import { Server } from "./server-support.ts";

const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;

/** What older versions do in a run that is not the long form (STACYVM_E2B=all). */
const SHORT = [
  /^listed by metadata/,
  /^connected by its id/,
  /^a command's output/,
  /^a command that fails$/,
  /^a terminal: input/,
];
const FILES = [
  /^a sandbox is running$/,
  /^several files at once/,
  /^directories: made/,
  /^volumes$/,
  /^killed, and gone/,
];

/**
 * The newest first, then others of the last six months. Of those, code interpreters know a sandbox by its domain only, and the oldest
 * also its files: `by` says what they do by the two variables. By the domain they do all (e2b-domain.test.ts).
 */
const VERSIONS = [
  { name: "e2b 2.51.0, @e2b/code-interpreter 2.8.0", e2b: "e2b", interpreter: "@e2b/code-interpreter", by: [/./] },
  {
    name: "e2b 2.35.3, @e2b/code-interpreter 2.6.0",
    e2b: "e2b-2-35",
    interpreter: "e2b-code-interpreter-2-6",
    by: [...SHORT, ...FILES],
  },
  {
    name: "e2b 2.9.0, @e2b/code-interpreter 2.2.0",
    e2b: "e2b-2-9",
    interpreter: "e2b-code-interpreter-2-2",
    by: SHORT,
  },
];

const long = process.env.STACYVM_E2B === "all";

describe("E2B's JavaScript SDKs", { timeout: 1_800_000 }, () => {
  let server: Server;
  before(async () => {
    server = await Server.create(`auth: {api_key: ${KEY}}\nproviders: {default: qemu}\n`);
    Object.assign(process.env, { E2B_API_URL: server.url, E2B_SANDBOX_URL: server.url, E2B_API_KEY: KEY });
  });
  after(() => server?.[Symbol.asyncDispose]());

  for (const [i, version] of VERSIONS.entries()) {
    test(version.name, async () => {
      const whole = i === 0 || long;
      const { by } = version;
      const sdk: Sdk = { e2b: await import(version.e2b), interpreter: await import(version.interpreter) };
      const all = new Scenarios((name) => whole || by.some((each) => each.test(name)), i > 0);
      await sandboxScenarios(all, sdk, { url: server.url, key: KEY });
      console.log(all.table(version.name));
      assert.deepEqual(all.failed, []);
      assert.ok(all.results.length >= (i === 0 ? 80 : by.length), String(all.results.length));
    });
  }
});
