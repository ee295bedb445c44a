/** The domain way: `https://api.D`, `https://<port>-<id>.D` behind the documented proxy, with a wildcard certificate and E2B_DOMAIN alone. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { DOMAIN, Domain, noProxy } from "./e2b-domain-support.ts";
import { Server } from "./server-support.ts";

const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;

describe("E2B's clients by their domain alone", { skip: noProxy, timeout: 300_000 }, () => {
  let server: Server;
  let domain: Domain;
  before(async () => {
    server = await Server.create(
      `auth: {api_key: ${KEY}}\nserver: {preview_domain: ${DOMAIN}}\nproviders: {default: qemu}\n`,
    );
    domain = await Domain.before(server);
  });
  after(async () => {
    await domain?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  for (const sdk of ["e2b", "e2b-2-9"]) {
    test(`${sdk}: sandboxes, streams, files, code, ports`, async () => {
      const { E2B_API_URL: _api, E2B_SANDBOX_URL: _sandbox, ...env } = process.env;
      const out = await runTool(process.execPath, [join(packageRoot, "test/e2b-domain.ts"), sdk], {
        env: { ...env, ...domain.env, E2B_API_KEY: KEY },
        timeoutMs: 120_000,
      });
      const { host, ...told } = JSON.parse(out.toString("utf8"));
      assert.match(host, new RegExp(`^8000-sb-[0-9a-f]{8}\\.${DOMAIN}:${domain.port}$`));
      const wanted = {
        content: "served by the sandbox",
        value: "42",
        page: "served by the sandbox",
        closed: 401,
        link: "served by the sandbox",
      };
      assert.deepEqual(told, wanted);
    });
  }
});
