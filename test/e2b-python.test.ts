/** E2B's published Python SDKs, unmodified, against a real server with real sandboxes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { DOMAIN, Domain, noProxy } from "./e2b-domain-support.ts";
import { type Outcome, Scenarios } from "./e2b-scenarios.ts";
import { e2bServer, PROVIDER, prepare } from "./e2b-support.ts";
import { environment } from "./python-support.ts";
import type { Server } from "./server-support.ts";

/** The newest first, then others of the last six months. */
const VERSIONS = [
  { e2b: "2.63.0", interpreter: "2.11.5" },
  { e2b: "2.44.0", interpreter: "2.8.0" },
  { e2b: "2.29.0", interpreter: "2.6.0" },
];

/** What older versions do in a run that is not the long form (STACYVM_E2B=all). */
const SHORT = [
  ...["a command", "a command that fails", "standard input", "text files", "directories", "listed by metadata"],
  ...["a terminal", "a watcher", "keys and ids that are not known", "killed"],
].map((name) => `sync: ${name}`);
/** Without the code interpreter: older ones know a sandbox by its domain only, which the long form gives them. */
const ALSO = ["async: a command", "async: files"];
const long = process.env.STACYVM_E2B === "all";

describe("E2B's Python SDKs, sync and async", { timeout: 1_800_000 }, () => {
  let server: Server;
  before(async () => {
    server = await e2bServer(long ? `server: {preview_domain: ${DOMAIN}}\n` : "");
    if (PROVIDER !== "qemu") await prepare(server, "base");
  });
  after(() => server?.[Symbol.asyncDispose]());

  for (const [i, { e2b, interpreter }] of VERSIONS.entries()) {
    const name = `e2b ${e2b}, e2b-code-interpreter ${interpreter}`;
    const older = i > 0 && long;
    test(older ? `${name}: all, with a domain` : name, { skip: older && noProxy }, async () => {
      await using domain = older ? await Domain.before(server) : undefined;
      const { E2B_API_URL: _api, E2B_SANDBOX_URL: _sandbox, ...rest } = process.env;
      const env = older ? rest : process.env;
      const packages = [`e2b==${e2b}`, `e2b-code-interpreter==${interpreter}`];
      const python = await environment(`python-e2b-${e2b}`, packages);
      const only = i === 0 || long ? [] : [...SHORT, ...ALSO];
      const out = await runTool(python, [join(packageRoot, "test/e2b-python.py"), ...only], {
        env: { ...env, ...domain?.env, STACYVM_TEST_URL: server.url },
        timeoutMs: 900_000,
      });
      const all = new Scenarios();
      for (const line of out.toString("utf8").trim().split("\n")) {
        const { name, outcome, ms, why } = JSON.parse(line);
        if (outcome === "absent") {
          assert.ok(i > 0, `${name}: ${why}`);
          all.absent.push(name);
        } else all.results.push({ name, outcome: outcome as Outcome, ms, ...(why === null ? {} : { why }) });
      }
      console.log(all.table(name));
      assert.deepEqual(all.failed, []);
      assert.ok(all.results.length >= (i === 0 ? 80 : only.length || 60), String(all.results.length));
    });
  }
});
