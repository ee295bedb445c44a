/** Pages of a hostile guest in the real browser of a user who needs no key: what they can make it ask of others. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { listen, type RunningServer } from "../src/api/server.ts";
import { validateConfig } from "../src/config/load.ts";
import { noBrowser, startBrowser } from "./browser-support.ts";
import { fakeApp } from "./fake-app.ts";

/** How a page asks for something without a word of its own in the request: of none it sees the answer. */
const WAYS = [
  "(to) => fetch(to, { mode: 'no-cors', referrerPolicy: 'no-referrer' }).then(() => {}, () => {})",
  "(to) => new Promise((done) => Object.assign(new Image(), { onload: done, onerror: done, src: to })).then(() => {})",
  "(to) => new Promise((done) => document.body.append(Object.assign(document.createElement('iframe'), { onload: done, src: to }))).then(() => {})",
];

describe("a page of a guest", { skip: noBrowser }, () => {
  // The kernel says whose the connections are, as it does of a real server.
  const world = fakeApp({ ownUser: true, peer: "kernel" });
  /** What programs of each sandbox were asked for. */
  const asked = { hers: [] as string[], other: [] as string[] };
  const guests: Server[] = [];
  let server: RunningServer;
  let browser: Browser;
  let page: Page;
  const ids: Record<string, string> = {};

  before(async () => {
    for (const name of ["hers", "other"] as const) {
      const guest = createServer((request, response) => {
        if (request.url !== "/favicon.ico") asked[name].push(request.url ?? "");
        response.setHeader("content-type", request.url?.endsWith(".js") ? "text/javascript" : "text/html");
        response.end(request.url?.endsWith(".js") ? "window.loaded = true" : `<script src="own.js"></script>${name}`);
      }).listen(0, "127.0.0.1");
      await once(guest, "listening");
      guests.push(guest);
      const { id, machine } = await world.sandboxes.spawn({});
      const { port } = guest.address() as AddressInfo;
      Object.assign(machine?.agent ?? {}, { tunnel: async () => connect({ port, allowHalfOpen: true }) });
      ids[name] = id;
    }
    const config = validateConfig({ server: { port: 0 } }, "").server;
    [server, browser] = await Promise.all([listen(world.app, config), startBrowser()]);
    page = await browser.newPage();
    page.setDefaultTimeout(60_000);
  });
  after(async () => {
    await browser?.close();
    await server?.close(0);
    for (const guest of guests) guest.close();
    await world.sandboxes.close({ destroy: true });
  });

  const at = (name: string, path = "/"): string => `http://8080-${ids[name]}.localhost:${server.port}${path}`;

  test("is shown with what belongs to it, and makes the browser ask nothing of the server or of another sandbox", async () => {
    await page.goto(at("hers"));
    assert.equal(await page.evaluate("window.loaded"), true);
    const statuses: Record<string, number> = {};
    page.on("response", (response) => {
      statuses[response.url()] = response.status();
    });
    const targets = [at("other", "/blind"), `http://127.0.0.1:${server.port}/api/v1/sandboxes`];
    for (const url of targets) {
      for (const ask of WAYS) await page.evaluate(`(${ask})(${JSON.stringify(url)})`);
      assert.equal(statuses[url], 403, url);
    }
    assert.deepEqual(asked.other, []);
    // A person who goes there gets there.
    await page.goto(at("other"));
    assert.equal(await page.evaluate("window.loaded"), true);
    assert.deepEqual(asked.other, ["/", "/own.js"]);
  });

  test("below the server's own name it is shown with what belongs to it, too", async () => {
    asked.hers.length = 0;
    await page.goto(`http://127.0.0.1:${server.port}/api/v1/sandboxes/${ids.hers}/ports/8080/`);
    assert.equal(await page.evaluate("window.loaded"), true);
    assert.deepEqual(asked.hers, ["/", "/own.js"]);
  });
});
