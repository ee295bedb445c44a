/** The page of the HTTP interface in a real browser: its form sends real requests, to this server only. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { noBrowser, startBrowser, watchPage } from "./browser-support.ts";
import { Server } from "./server-support.ts";

const KEY = "key-of-the-page";

test("a request is tried from the page, with a key", { skip: noBrowser, timeout: 120_000 }, async () => {
  await using server = await Server.create(`auth: { api_key: ${KEY} }\n`);
  for (const path of ["/docs", "/swagger", "/swagger/", "/swagger/index.html"]) {
    assert.equal((await fetch(`${server.url}${path}`)).url, `${server.url}/docs/`, path);
  }
  const policy = (await fetch(`${server.url}/docs/`)).headers.get("content-security-policy") ?? "";
  assert.match(policy, /default-src 'none'.*script-src 'self';/);
  assert.equal((await fetch(`${server.url}/docs/..%2findex.html`)).status, 404);

  const browser = await startBrowser();
  try {
    const page = await browser.newPage();
    const wrong = watchPage(page, server.url);
    await page.goto(`${server.url}/docs/`);
    await page.getByRole("button", { name: "Authorize" }).first().click();
    await page.getByLabel("Value:").first().fill(KEY);
    await page.getByRole("button", { name: "Apply credentials" }).first().click();
    await page.getByRole("button", { name: "Close" }).first().click();

    const admission = page.locator("#operations-sandboxes-post_api_v1_sandboxes_admission");
    await page.getByText("What a spawn would meet now").first().click();
    await admission.locator("textarea").fill(JSON.stringify({ image: "stacyvm/busybox", ttl: "1000h" }));
    await admission.getByRole("button", { name: "Execute" }).click();
    const answer = admission.locator(".live-responses-table");
    await answer.getByText("200", { exact: true }).first().waitFor();
    assert.match((await answer.textContent()) ?? "", /"reason": "max_ttl"/);
    assert.deepEqual(wrong, []);
  } finally {
    await browser.close();
  }
});
