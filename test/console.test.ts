/**
 * The console in a real browser, against a real server with real machines: what is inside a sandbox. All else, with hundreds of
 * them: console-pages.test.ts. `STACYVM_TEST_BROWSER` names another Chromium.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { noBrowser, soon, startBrowser, watchPage } from "./browser-support.ts";
import { faults } from "./console-support.ts";
import { Server } from "./server-support.ts";

const KEY = "key-of-the-console";
const CONFIG = `
auth: { api_key: ${KEY} }
network: { private: ["127.8.8.8"] }
`;
/** A red square. */
const PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR4nGP8z4APMOGVHbHSAEEsAROxCnMTAAAAAElFTkSuQmCC";

describe("the console with real machines", { skip: noBrowser, timeout: 300_000 }, () => {
  let server: Server;
  let browser: Browser;
  let page: Page;
  let wrong: string[] = [];

  before(async () => {
    server = await Server.create(CONFIG);
    browser = await startBrowser();
    page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
    wrong = watchPage(page, server.url);
  });
  after(async () => {
    await browser.close();
    await server[Symbol.asyncDispose]();
  });

  const button = (name: string | RegExp) => page.getByRole("button", { name, exact: true });
  const section = (name: string) => page.getByRole("region", { name, exact: true });
  const tab = (name: string) => page.getByRole("navigation", { name: "Sandbox" }).getByRole("link", { name }).click();
  const id = (): string => new URL(page.url()).hash.split("/")[2] ?? "";

  test("the server's key is asked for, and a wrong one is not taken", async () => {
    await page.goto(server.url);
    await page.waitForURL("**/ui/");
    await page.getByLabel("API key").fill("nonsense");
    await button("Sign in").click();
    await page.getByText("This key is not valid.").waitFor();
    assert.deepEqual(await faults(page), []);
    await page.getByLabel("API key").fill(KEY);
    await button("Sign in").click();
    await page.getByText("No sandboxes yet.").waitFor();
    const providers = await fetch(`${server.url}/api/v1/providers`, { headers: { "x-api-key": KEY } });
    const [own] = (await providers.json()) as { accelerator?: string }[];
    assert.equal(await page.getByText("software emulation").count(), own?.accelerator === "tcg" ? 1 : 0);
  });

  test("the link that the server's start prints brings the key, which does not stay in the address", async () => {
    const other = await browser.newPage();
    await other.goto(`${server.url}/ui/#key=${encodeURIComponent(KEY)}`);
    await other.getByText("No sandboxes yet.").waitFor();
    assert.equal(other.url(), `${server.url}/ui/`);
    await other.close();
  });

  test("a sandbox is started by the form; its own page and the start times show what that took", async () => {
    await page.getByRole("link", { name: "New sandbox" }).click();
    const form = page.getByRole("form", { name: "New sandbox" });
    await form.getByRole("combobox", { name: "Image" }).fill("stacyvm/busybox");
    await form.getByLabel("Name", { exact: true }).fill("first");
    await form.getByLabel("Memory, MiB").fill("128");
    await form.getByLabel("Environment").fill("GREETING=hello there");
    await form.getByLabel("Network: allowed hosts").fill("*.example.com");
    await button("Start").click();
    await page.getByRole("heading", { name: "first" }).waitFor();
    await tab("Details");
    await section("Start").getByText(/^cold/).waitFor();
    await section("Start").getByText("agent").first().waitFor();
    await button("Show the environment").click();
    await section("Environment").getByText("hello there").waitFor();
    // What another program does is seen without a reload.
    await page.getByRole("link", { name: "Sandboxes" }).click();
    const headers = { "x-api-key": KEY, "content-type": "application/json" };
    const body = JSON.stringify({ image: "stacyvm/busybox", memory_mb: 128 });
    const other = await fetch(`${server.url}/api/v1/sandboxes`, { method: "POST", headers, body });
    const { id: second } = (await other.json()) as { id: string };
    const row = page.getByRole("row").filter({ hasText: second });
    await row.getByText("running").waitFor();
    await row.getByRole("cell", { name: /MiB guest 128 MiB/ }).waitFor();
    await section("Start times")
      .getByRole("row", { name: /cold \d/ })
      .waitFor();
    await section("Start times").locator("canvas").waitFor();
    await row.getByRole("button", { name: `Remove ${second}` }).click();
    await page.getByRole("dialog").getByRole("textbox").fill(second);
    await page.keyboard.press("Enter");
    await row.waitFor({ state: "detached" });
  });

  test("two shells side by side; what is typed runs there, its end is told, and the keyboard gets out", async () => {
    await page.getByRole("link", { name: "first" }).click();
    await button("Open a shell").click();
    const screen = page.locator(".terminal .xterm-rows");
    await screen.getByText("#").first().waitFor();
    await page.keyboard.type("expr 6 '*' 7; echo größer > /workspace/note\n");
    await screen.getByText("42", { exact: true }).waitFor();
    await button("Another shell").click();
    await screen.getByText("42", { exact: true }).waitFor({ state: "detached" });
    await screen.getByText("#").first().waitFor();
    await page.keyboard.type("cat /workspace/note; exit 3\n");
    await screen
      .locator("div")
      .filter({ hasText: /^größer$/ })
      .first()
      .waitFor();
    await page.getByText("The shell ended with 3.").waitFor();
    // The first one is as it was, also after a look at another tab.
    await tab("Files");
    await tab("Terminal");
    await button("Shell 1").click();
    await screen.getByText("42", { exact: true }).waitFor();
    assert.deepEqual(await faults(page), []);
    await button("Screen reader").click();
    await page.locator(".xterm-accessibility").waitFor({ state: "attached" });
    assert.deepEqual(await faults(page), []);
    await button("Screen reader").click();
    await page.locator(".xterm-helper-textarea").focus();
    await page.keyboard.press("Tab");
    assert.match(String(await page.evaluate("document.activeElement.className")), /xterm/);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Tab");
    assert.doesNotMatch(String(await page.evaluate("document.activeElement.className")), /xterm/);
  });

  test("files: read, changed, dropped in, dragged out; pictures are shown, and nothing in them is taken for HTML", async () => {
    await tab("Files");
    const files = section("Files");
    await files.getByRole("button", { name: "note", exact: true }).click();
    const content = page.getByLabel("Content of note");
    await content.fill("smaller\n");
    await button("Save").click();
    await page.getByText("Saved note.").waitFor();
    const name = "<img src=x onerror=alert(1)>.txt";
    const dropped = await page.evaluateHandle(
      ([file, picture]) => {
        // biome-ignore lint/suspicious/noExplicitAny: this runs in the browser
        const { DataTransfer, File, atob } = globalThis as any;
        const transfer = new DataTransfer();
        transfer.items.add(new File(["<b>not bold</b>"], file));
        transfer.items.add(new File([Uint8Array.from(atob(picture), (c: string) => c.charCodeAt(0))], "plot.png"));
        return transfer;
      },
      [name, PICTURE],
    );
    await page.locator(".drop").dispatchEvent("drop", { dataTransfer: dropped });
    await files.getByRole("button", { name, exact: true }).click();
    await page.getByLabel(`Content of ${name}`).waitFor();
    assert.equal(await page.getByLabel(`Content of ${name}`).inputValue(), "<b>not bold</b>");
    await files.getByRole("button", { name: "plot.png", exact: true }).click();
    const picture = page.getByRole("img", { name: "plot.png" });
    await picture.waitFor();
    assert.equal(await picture.evaluate((image) => (image as unknown as { naturalWidth: number }).naturalWidth), 10);
    assert.deepEqual(await faults(page), []);
    // Dragged out: the content is there when the drag begins.
    const out = files.getByRole("button", { name: "note", exact: true });
    await out.dispatchEvent("pointerdown");
    const dragged = await soon(() =>
      out.evaluate((element) => {
        // biome-ignore lint/suspicious/noExplicitAny: this runs in the browser
        const { DataTransfer, DragEvent } = globalThis as any;
        const dataTransfer = new DataTransfer();
        (element as unknown as EventTarget).dispatchEvent(new DragEvent("dragstart", { dataTransfer, bubbles: true }));
        return String(dataTransfer.getData("DownloadURL"));
      }),
    );
    assert.match(dragged, /^application\/octet-stream:note:blob:http/);
    const download = page.waitForEvent("download");
    await button("Download note").click();
    assert.equal((await download).suggestedFilename(), "note");
    await button("Remove note").click();
    await page.getByRole("dialog").getByRole("textbox").fill("note");
    await page.keyboard.press("Enter");
    await out.waitFor({ state: "detached" });
    await files.getByLabel("Directory").fill("/nowhere");
    await button("Go").click();
    await files.locator("small").getByText("/nowhere").waitFor();
  });

  test("processes: started, seen with all others, their output followed, stopped", async () => {
    // The first answer comes after a later one: it is older than what is shown, and not heard.
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    await page.route(
      /\/exec$/,
      async (route) => {
        const response = await route.fetch();
        await held;
        await route.fulfill({ response });
      },
      { times: 1 },
    );
    await tab("Processes");
    await page.getByLabel("Start a command").fill("while :; do echo line-$((n=n+1)); sleep 1; done");
    await button("Start").click();
    const row = section("Commands").getByRole("row", { name: /line-/ });
    await row.getByText("running").waitFor();
    await button("Refresh").click();
    await section("All processes")
      .getByRole("row", { name: /sleep 1|line-/ })
      .first()
      .waitFor();
    const late = page.waitForResponse(/\/exec$/);
    release();
    await (await late).finished();
    await page.evaluate("new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)))");
    assert.ok(
      (await section("All processes")
        .getByRole("row", { name: /sleep 1|line-/ })
        .count()) > 0,
    );
    assert.deepEqual(await faults(page), []);
    await row.getByRole("link", { name: /^Output of/ }).click();
    const output = page.getByLabel("Output", { exact: true });
    await output.filter({ hasText: "line-2" }).waitFor();
    await page.getByLabel("Times").check();
    await output.filter({ hasText: /\d\d:\d\d:\d\d\.\d{3} {2}line-1\n/ }).waitFor();
    // What it has written is there at once; what comes is shown again when somebody follows again.
    await page.getByLabel("Follow").uncheck();
    const last = Number(/line-(\d+)$/.exec((await output.textContent())?.trimEnd() ?? "")?.[1]);
    assert.ok(last >= 2, String(last));
    await page.getByLabel("Follow").check();
    await output.filter({ hasText: `line-${last + 2}` }).waitFor();
    assert.deepEqual(await faults(page), []);
    await page.getByLabel("Of").selectOption("console");
    await page.getByLabel("Console", { exact: true }).waitFor();
    await tab("Processes");
    await row.getByRole("button", { name: /^Kill/ }).click();
    await row.getByText("signal 9").waitFor();
  });

  test("ports: what listens is found, with the address where it is seen", async () => {
    await tab("Processes");
    await page.getByLabel("Start a command").fill("cd /workspace && busybox httpd -f -p 8000");
    await button("Start").click();
    await section("Commands").getByRole("row", { name: /httpd/ }).getByText("running").waitFor();
    await tab("Ports");
    const link = section("Ports").getByRole("link");
    for (let i = 0; i < 20 && (await link.count()) === 0; i++) await button("Refresh").click();
    const { hostname, port } = new URL((await link.getAttribute("href")) ?? "");
    assert.equal(hostname, `8000-${id()}.localhost`);
    const asked = request(`${server.url}/plot.png`, { headers: { host: `${hostname}:${port}`, "x-api-key": KEY } });
    asked.end();
    const [answer] = await once(asked, "response");
    assert.equal(answer.statusCode, 200, await text(answer));
    assert.deepEqual(await faults(page), []);
  });

  test("the network's hosts are shown, changed, and a wrong one is explained beside its field", async () => {
    await tab("Details");
    const hosts = page.getByRole("textbox", { name: "Allowed hosts" });
    assert.equal(await hosts.inputValue(), "*.example.com");
    await hosts.fill("http://nonsense");
    await button("Save the allowed hosts").click();
    await section("Network").getByText("names no host to allow").waitFor();
    await hosts.fill("pkg.example\n*.pkgfiles.example");
    await button("Save the allowed hosts").click();
    await page.getByText("Saved the allowed hosts.").waitFor();
    const answer = await fetch(`${server.url}/api/v1/sandboxes/${id()}`, { headers: { "x-api-key": KEY } });
    assert.deepEqual(((await answer.json()) as { allowed_hosts: string[] }).allowed_hosts, [
      "pkg.example",
      "*.pkgfiles.example",
    ]);
    await section("Commands that ran").getByText("httpd").first().waitFor();
    await tab("Metrics");
    await page.getByText(/of one core, of 1/).waitFor();
    await page.locator("canvas").nth(1).waitFor();
    assert.deepEqual(await faults(page), []);
  });

  test("paused and resumed; a fork has its programs, and the host's doctor what it found", async () => {
    await button("Pause").click();
    await page.getByRole("main").getByText("paused", { exact: true }).waitFor();
    await button("Resume").click();
    await page.getByRole("main").getByText("running", { exact: true }).waitFor();
    const before = id();
    await button("Fork").click();
    await page.waitForURL((url) => !url.hash.includes(before));
    await tab("Details");
    await page.getByRole("link", { name: before }).waitFor();
    await page.getByRole("link", { name: "Host" }).click();
    await page.getByText("A sandbox can start.").waitFor({ timeout: 60_000 });
    assert.deepEqual(await faults(page), []);
    await page.getByRole("link", { name: "Images" }).click();
    await page.getByRole("cell", { name: /^stacyvm\/busybox/ }).waitFor();
    await page.getByRole("link", { name: "Snapshots" }).click();
    const golden = section("Golden snapshots").getByRole("row", { name: /stacyvm\/busybox/ });
    for (let i = 0; i < 60 && (await golden.count()) === 0; i++) {
      // Waited for before it is asked for: the answer may be there sooner than the click returns.
      const answered = page.waitForResponse((response) => response.url().endsWith("/snapshots"));
      await section("Golden snapshots").getByRole("button", { name: "Refresh" }).click();
      await answered;
    }
    await button("Remove unused").click();
    await page.getByText("Every snapshot is in use.").or(page.getByRole("dialog")).first().waitFor();
  });

  test("the page asked nobody else, and nothing went wrong in it", () => {
    // The requests that were refused on purpose are logged by the browser too.
    assert.deepEqual(
      wrong.filter((each) => !/status of 40[049]/.test(each)),
      [],
    );
  });
});
