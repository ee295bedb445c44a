/** The console in a real browser, against a real server with real machines. `STACYVM_TEST_BROWSER` names another Chromium. */
import assert from "node:assert/strict";

import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { noBrowser, startBrowser, watchPage } from "./browser-support.ts";
import { Server } from "./server-support.ts";

const KEY = "key-of-the-console";
const CONFIG = `
auth: { api_key: ${KEY} }
network: { private: ["127.8.8.8"] }
`;
describe("the console in a browser", { skip: noBrowser, timeout: 300_000 }, () => {
  let server: Server;
  let browser: Browser;
  let page: Page;
  let wrong: string[] = [];

  before(async () => {
    server = await Server.create(CONFIG);
    browser = await startBrowser();
    page = await browser.newPage();
    wrong = watchPage(page, server.url);
  });
  after(async () => {
    await browser.close();
    await server[Symbol.asyncDispose]();
  });

  const button = (name: string) => page.getByRole("button", { name, exact: true });
  const section = (name: string) => page.getByRole("region", { name, exact: true });

  test("the server's key is asked for, and a wrong one is not taken", async () => {
    await page.goto(server.url);
    await page.waitForURL("**/ui/");
    await page.getByLabel("The server's key").fill("nonsense");
    await button("Enter").click();
    await page.getByText("That one is not valid.").waitFor();
    await page.getByLabel("The server's key").fill(KEY);
    await button("Enter").click();
    await section("New sandbox").waitFor();
  });

  test("the link that the server's start prints brings the key, which does not stay in the address", async () => {
    const other = await browser.newPage();
    await other.goto(`${server.url}/ui/#key=${encodeURIComponent(KEY)}`);
    await other.getByRole("region", { name: "New sandbox", exact: true }).waitFor();
    assert.equal(other.url(), `${server.url}/ui/`);
    await other.close();
  });

  test("a sandbox is started by the form, and the page shows what it took", async () => {
    await page.getByLabel("image").fill("stacyvm/busybox");
    await page.getByLabel("memory, MiB").fill("128");
    await page.getByLabel("network").fill("*.example.com");
    await button("Start").click();
    await section("Sandboxes").getByText("running").waitFor();
    await section("Spawns").getByRole("img").locator("rect").first().waitFor({ state: "attached" });
    assert.match((await section("Spawns").textContent()) ?? "", /cold\s*1\d/);
    // What another program does is seen without a reload.
    const other = await fetch(`${server.url}/api/v1/sandboxes`, {
      method: "POST",
      headers: { "x-api-key": KEY, "content-type": "application/json" },
      body: JSON.stringify({ image: "stacyvm/busybox", memory_mb: 128 }),
    });
    const { id } = (await other.json()) as { id: string };
    const row = section("Sandboxes").getByRole("row").filter({ hasText: id });
    await row.getByText("running").waitFor();
    await section("Events").getByText("sandbox.running").first().waitFor();
    await row.getByRole("button", { name: "remove" }).click();
    await row.waitFor({ state: "detached" });
  });

  test("a terminal: what is typed runs there, and its end is told", async () => {
    await section("Sandboxes").getByRole("link").first().click();
    await button("open a shell").click();
    const screen = page.locator("#terminal .xterm-rows");
    await screen.getByText("#").first().waitFor();
    await page.keyboard.type("expr 6 '*' 7; echo größer > /workspace/note; exit 3\n");
    await screen.getByText("42", { exact: true }).waitFor();
    await page.getByText("the shell ended with 3").waitFor();
  });

  test("files: listed, read, uploaded; nothing in them is taken for HTML", async () => {
    const files = section("Files");
    await files.getByRole("button", { name: "list" }).click();
    await files.getByRole("link", { name: "note" }).click();
    await files.getByText("größer").waitFor();
    await files.locator('input[type="file"]').setInputFiles({
      name: "<img src=x onerror=alert(1)>.txt",
      mimeType: "text/plain",
      buffer: Buffer.from("<b>not bold</b>"),
    });
    await files.getByRole("link", { name: /onerror/ }).click();
    await files.getByText("<b>not bold</b>").waitFor();
    await files.getByRole("textbox", { name: "Directory" }).fill("/nowhere");
    await files.getByRole("button", { name: "list" }).click();
    const note = page.locator("#notes .note");
    await note.getByText("/nowhere").waitFor();
    await note.click();
  });

  test("the network's hosts are shown, changed, and a wrong one is explained", async () => {
    const network = section("Network");
    const hosts = network.getByRole("textbox");
    await assertValue(hosts, "*.example.com");
    await hosts.fill("http://nonsense");
    await network.getByRole("button", { name: "set" }).click();
    const note = page.locator("#notes .note");
    await note.getByText("names no host to allow").waitFor();
    await note.click();
    await hosts.fill("pkg.example\n*.pkgfiles.example");
    await Promise.all([
      page.waitForResponse((response) => response.request().method() === "PUT" && response.ok()),
      network.getByRole("button", { name: "set" }).click(),
    ]);
    await network.getByText("0 open now").waitFor();
    assert.deepEqual((await sandbox()).allowed_hosts, ["pkg.example", "*.pkgfiles.example"]);
  });

  test("pause, resume, fork, remove", async () => {
    const about = section("About");
    await about.getByRole("button", { name: "pause" }).click();
    await about.getByText("paused").waitFor();
    await about.getByRole("button", { name: "resume" }).click();
    await about.getByText("running").waitFor();
    const before = page.url();
    await about.getByRole("button", { name: "fork" }).click();
    await page.waitForURL((url) => url.href !== before);
    await about.getByText("a fork of sb-").waitFor();
    await about.getByRole("button", { name: "remove" }).click();
    await section("Sandboxes").getByRole("row").nth(1).waitFor();
    assert.equal(await section("Sandboxes").getByRole("link").count(), 1);
  });

  test("the page asked nobody else, and nothing went wrong in it", () => {
    // The requests that were refused on purpose are logged by the browser too.
    assert.deepEqual(
      wrong.filter((each) => !/status of 40[04]/.test(each)),
      [],
    );
  });

  // biome-ignore lint/suspicious/noExplicitAny: an answer's body
  async function sandbox(): Promise<any> {
    const id = new URL(page.url()).hash.slice(2);
    const answer = await fetch(`${server.url}/api/v1/sandboxes/${id}`, { headers: { "x-api-key": KEY } });
    return answer.json();
  }

  async function assertValue(input: ReturnType<Page["getByRole"]>, value: string): Promise<void> {
    await page.waitForFunction(([element, wanted]) => (element as { value?: string } | null)?.value === wanted, [
      await input.elementHandle(),
      value,
    ] as const);
  }
});
