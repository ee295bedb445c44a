/** E2B's published JavaScript SDKs, unmodified, against a real server with real sandboxes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { DOMAIN, Domain, noProxy } from "./e2b-domain-support.ts";
import { untrue } from "./e2b-features.ts";
import { type Sdk, sandboxScenarios } from "./e2b-js-scenarios.ts";
import { Scenarios } from "./e2b-scenarios.ts";
import { e2bServer, KEY, PROVIDER, prepare } from "./e2b-support.ts";
import type { Server } from "./server-support.ts";

/** What older versions do in a run that is not the long form (STACYVM_E2B=all), which has them do everything. */
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
 * also its files: `by` says what they do by the two variables. The long form gives them a domain, too.
 */
const NEWEST = { name: "e2b 2.51.0, @e2b/code-interpreter 2.8.0", e2b: "e2b", interpreter: "@e2b/code-interpreter" };
const OLDER = [
  {
    name: "e2b 2.35.3, @e2b/code-interpreter 2.6.0",
    e2b: "e2b-2-35",
    interpreter: "e2b-code-interpreter-2-6",
    by: [...SHORT, ...FILES],
    without: [],
  },
  {
    name: "e2b 2.9.0, @e2b/code-interpreter 2.2.0",
    e2b: "e2b-2-9",
    interpreter: "e2b-code-interpreter-2-2",
    by: SHORT,
    without: [
      // It takes no such options, and goes on without them.
      "paused without memory at the end of its time",
      "changes with what it is that has changed",
      ...["volumes in a sandbox", "metadata of files", "paused at the end of its time, and brought back by its use"],
      // Its names stand in other places.
      "a template is built from steps and files, with its log as it comes, and a sandbox starts from it",
      ...[
        "variables in the steps of a template",
        "who and where a template's last steps named is who and where commands run, in what is built from it too",
        "a step that fails, with its words and its place",
        "a template that is being built: its machine is no sandbox of the client's, and is deleted with it",
        "a template is deleted, and the image that was made for it",
      ],
      // It shows the sandbox's token for code, and not for contexts.
      "contexts of the code interpreter",
      "code interpreter: a context keeps its own names and its directory",
    ],
  },
];

const long = process.env.STACYVM_E2B === "all";

/**
 * Of the newest, under Firecracker where KVM interprets the guest's kernel, and a command takes seconds: one of each kind, in turns, so
 * that a quiet machine is done in a quarter of an hour.
 */
const FIRECRACKER = [
  ...[
    /^a sandbox is running$/,
    /^its information$/,
    /^listed by metadata/,
    /^its time is set/,
    /^metrics$/,
    /^its log$/,
  ],
  ...[
    /^connected by its id/,
    /^a command's output/,
    /^a command that fails$/,
    /^environment and directory of a command/,
  ],
  ...[/^a command in the background/, /^a terminal: input/, /^a file is written and read/, /^several files at once/],
  ...[/^directories: made/, /^changes in a directory/, /^signed links/, /^a snapshot, and/, /^paused with what runs/],
  ...[/^volumes$/, /^secrets$/, /^killed, and gone$/],
];
const slow = PROVIDER !== "qemu" && process.env.STACYVM_E2B_ONLY === undefined;

describe("E2B's JavaScript SDKs", { timeout: 1_800_000 }, () => {
  let server: Server;
  before(async () => {
    server = await e2bServer(long ? `server: {preview_domain: ${DOMAIN}}\n` : "");
    // A kernel that is interpreted takes minutes to be saved.
    if (PROVIDER !== "qemu") await prepare(server, "base");
  });
  after(() => server?.[Symbol.asyncDispose]());

  function judge(all: Scenarios, name: string, atLeast: number): void {
    console.log(all.table(name));
    assert.deepEqual(all.failed, []);
    if (process.env.STACYVM_E2B_ONLY === undefined)
      assert.ok(all.results.length >= atLeast, String(all.results.length));
  }

  test(NEWEST.name, async () => {
    const sdk: Sdk = { e2b: await import(NEWEST.e2b), interpreter: await import(NEWEST.interpreter) };
    const all = new Scenarios((name) => !slow || FIRECRACKER.some((pattern) => pattern.test(name)));
    await sandboxScenarios(all, sdk, { url: server.url, key: KEY, ...(slow ? { lifeMs: 3_600_000 } : {}) });
    judge(all, NEWEST.name, slow ? FIRECRACKER.length : 80);
    if (process.env.STACYVM_E2B_ONLY === undefined && !slow)
      assert.deepEqual(await untrue(all), [], "docs/e2b.md tells the truth");
  });

  for (const { name, e2b, interpreter, by, without } of OLDER) {
    const done = long ? "the long form does all of them" : slow && "under Firecracker the newest alone";
    test(`${name}: a short list by the two variables`, { skip: done }, async () => {
      const sdk: Sdk = { e2b: await import(e2b), interpreter: await import(interpreter) };
      const all = new Scenarios((each) => by.some((pattern) => pattern.test(each)), true);
      await sandboxScenarios(all, sdk, { url: server.url, key: KEY });
      judge(all, name, by.length);
    });

    const skip = long ? noProxy : "a short list is done; STACYVM_E2B=all does all of them";
    test(`${name}: all, with a domain`, { skip }, async () => {
      await using domain = await Domain.before(server);
      const program = [
        join(packageRoot, "test/e2b-js-older.ts"),
        e2b,
        interpreter,
        server.url,
        JSON.stringify(without),
      ];
      const { E2B_API_URL: _api, E2B_SANDBOX_URL: _sandbox, ...rest } = process.env;
      const env = { ...rest, ...domain.env };
      const out = await runTool(process.execPath, program, { env, timeoutMs: 900_000 });
      const all = new Scenarios();
      const { results, absent } = JSON.parse(out.toString("utf8")) as Pick<Scenarios, "results" | "absent">;
      all.results.push(...results);
      all.absent.push(...absent);
      judge(all, name, 60);
    });
  }
});
