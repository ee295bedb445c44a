/** What the tests of E2B's clients share: the key, the variables, and machines that are saved before anybody asks. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { borrow } from "../bench/borrow.ts";
import { Client } from "../sdk/src/index.ts";
import { borrowGoldens, lendGoldens } from "./goldens.ts";
import { freePort } from "./images-support.ts";
import { Server } from "./server-support.ts";

/** In the form that E2B's clients look for. */
export const KEY = `e2b_${"0123456789abcdef".repeat(3).slice(0, 40)}`;

/** The monitor: `STACYVM_E2B_PROVIDER=firecracker` is a long form of the same scenarios. */
export const PROVIDER = process.env.STACYVM_E2B_PROVIDER ?? "qemu";

/** Long forms hand on the machines that they have saved. */
const long = PROVIDER !== "qemu" || process.env.STACYVM_E2B === "all" || "STACYVM_E2B_SUITES" in process.env;

/** A server, and this process's variables for it. @param more of its `stacyvm.yaml` */
export async function e2bServer(more = ""): Promise<Server> {
  const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "server-"));
  await borrow(root);
  if (long) await borrowGoldens(join(root, "snapshots"));
  // One that a scenario is for a moment: a server asks registries at private addresses only where they are named.
  const registry = `127.0.0.1:${await freePort()}`;
  const config = `auth: {api_key: ${KEY}}\n${more}providers: {default: ${PROVIDER}}\nimages: {registries: {"${registry}": {insecure: true}}}\n`;
  await writeFile(join(root, "stacyvm.yaml"), config);
  const server = await Server.open(root);
  Object.assign(process.env, {
    ...{ E2B_API_URL: server.url, E2B_SANDBOX_URL: server.url, E2B_API_KEY: KEY },
    // Without it or a domain, clients ask E2B itself for the files of a volume.
    E2B_VOLUME_API_URL: server.url,
    E2B_TEST_REGISTRY: registry,
  });
  return server;
}

/** Images are made and machines saved: E2B's clients wait a minute for a sandbox, and the first one of a template takes longer. */
export async function prepare(server: Server, ...templates: string[]): Promise<void> {
  const client = new Client({ url: server.url, apiKey: KEY });
  for (const template of templates) {
    await client.images.pull(`stacyvm/${template}`);
    // Not by `fetch`, which waits five minutes for an answer.
    const call = request(`${server.url}/api/v1/snapshots`, {
      method: "POST",
      headers: { "x-api-key": KEY, "content-type": "application/json" },
    });
    call.end(JSON.stringify({ template }));
    const [answer] = (await once(call, "response")) as [IncomingMessage];
    assert.equal(answer.statusCode, 201, `${template}: ${await text(answer)}`);
    answer.resume();
  }
  if (long) await lendGoldens(join(server.root, "snapshots"));
}
