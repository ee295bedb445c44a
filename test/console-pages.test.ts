/**
 * The console in a real browser, with machines that are plain objects: hundreds of them, every action, every page at three widths,
 * a server that goes and comes back. With real machines: console.test.ts.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { noBrowser, soon, startBrowser } from "./browser-support.ts";
import { busy, ConsoleServer, faults } from "./console-support.ts";

const PAGES = ["#/", "#/new", "#/images", "#/templates", "#/saved", "#/events", "#/host", "#/access"];
const MAX_BYTES = 250_000;
/** Buttons of a table that are seen in part or not at all unless somebody scrolls it sideways. */
const HIDDEN_BUTTONS = `[...document.querySelectorAll(".scroll")].flatMap((box) => {
  const { right } = box.getBoundingClientRect();
  const buttons = [...box.querySelectorAll("button, a.button")].filter((each) => each.checkVisibility());
  return buttons.filter((each) => each.getBoundingClientRect().right > right + 1).map((each) => each.ariaLabel || each.textContent);
})`;

describe("the console's pages", { skip: noBrowser, timeout: 300_000 }, () => {
  let server: ConsoleServer;
  let browser: Browser;
  let context: BrowserContext;
  const wrong: string[] = [];

  before(async () => {
    [server, browser] = await Promise.all([ConsoleServer.create(30), startBrowser()]);
    context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
    context.on("weberror", (error) => wrong.push(String(error.error())));
  });
  after(async () => {
    await browser?.close();
    await server?.[Symbol.asyncDispose]();
  });

  const rows = (page: Page) => page.getByRole("group", { name: "Table of sandboxes" }).locator("tbody tr");
  const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });
  /** Types what a dialog asks for, and answers it. */
  const confirm = async (page: Page, word: string, verb: string): Promise<void> => {
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    assert.equal(await dialog.getByRole("button", { name: verb }).isDisabled(), true, "before the name is typed");
    await page.keyboard.type(word); // it has the focus
    await dialog.getByRole("button", { name: verb }).click();
    await dialog.waitFor({ state: "detached" });
  };

  test("all that the page loads, with every part of it, is small", async () => {
    const page = await context.newPage();
    const loading = new Map<string, Promise<number>>();
    page.on("response", (response) => {
      const { pathname } = new URL(response.url());
      if (!pathname.startsWith("/ui/")) return;
      assert.equal(response.headers()["content-encoding"], "gzip", pathname);
      loading.set(
        pathname,
        response
          .request()
          .sizes()
          .then((sizes) => sizes.responseBodySize),
      );
    });
    await page.addInitScript(`sessionStorage.setItem("stacyvm.key", ${JSON.stringify(server.key)})`);
    await page.goto(`${server.url}/ui/#/host`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    // What is loaded when it is needed: charts and the terminal.
    await page.evaluate(`Promise.all(["uplot", "@xterm/xterm", "@xterm/addon-fit"].map((name) => import(name)))`);
    const total = (await Promise.all(loading.values())).reduce((sum, bytes) => sum + bytes, 0);
    assert.ok(loading.size > 40, [...loading.keys()].join());
    assert.ok([...loading.keys()].some((name) => name.endsWith("xterm.mjs")));
    assert.ok(total < MAX_BYTES, `${total} bytes`);
    await page.close();
  });

  test("every page fits a phone, a tablet and a desktop, light and dark; axe finds nothing", async () => {
    const { world } = server;
    const [first] = world.sandboxes.list();
    await world.sandboxes.checkpoint(first?.id ?? "", { name: "before" });
    await server.call("POST", "/templates", { name: "web", image: "stacyvm/python", setup: ["true"] });
    await server.call("PUT", "/quotas/u", { max_sandboxes: 3 });
    world.sandboxes.events.emit("operation.failed", first?.id, { operation: "pull", message: "<b>no</b>" });
    const image = "docker.io/library/some-long-name-of-an-image:3.12-slim-bookworm";
    const long = await world.sandboxes.spawn({ owner: "default", image, name: `long-${"name-".repeat(8)}0` });
    const all = [
      ...PAGES,
      ...["terminal", "metrics", "checkpoints", "events", "details"].map((tab) => `#/sandboxes/${first?.id}/${tab}`),
    ];
    for (const [width, colorScheme, deep] of [
      [1440, "light", /./],
      [360, "dark", /^#\/$|new|access|host|details/], // every kind of part once
      [768, "light", undefined],
    ] as const) {
      const sized = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
      const page = await server.open(sized);
      for (const hash of all) {
        await page.evaluate(`location.hash = ${JSON.stringify(hash)}`);
        await page.locator(`nav[aria-label] a[aria-current]`).first().waitFor();
        await page.getByText("Examining").first().waitFor({ state: "detached" });
        if (deep?.test(hash)) assert.deepEqual(await faults(page), [], `${hash} at ${width}, ${colorScheme}`);
        else
          assert.equal(
            await page.evaluate("document.documentElement.scrollWidth <= innerWidth"),
            true,
            `${hash} at ${width}`,
          );
        if (deep !== undefined) {
          // The other colours.
          await page.emulateMedia({ colorScheme: colorScheme === "light" ? "dark" : "light" });
          assert.deepEqual(await faults(page, ["color-contrast"]), [], `${hash} at ${width}, not ${colorScheme}`);
          await page.emulateMedia({ colorScheme });
        }
        assert.equal(await page.locator("h1").count(), 1, hash);
        assert.deepEqual(await page.evaluate(HIDDEN_BUTTONS), [], `${hash} at ${width}: to the right of its table`);
      }
      assert.match(await page.title(), /^.+, details · StacyVM$/);
      await sized.close();
    }
    await world.sandboxes.destroy(long.id);
  });

  test("nothing: the page says how to begin. One: its own name is what removes it", async () => {
    await using empty = await ConsoleServer.create(0);
    const page = await empty.open(context);
    await page.getByText("No sandboxes yet.").waitFor();
    assert.deepEqual(await faults(page), [], "of an empty page");
    const [id = ""] = await empty.spawn(1);
    await page.getByRole("link", { name: id }).waitFor();
    assert.deepEqual(await faults(page), [], "of one sandbox");
    await button(page, `Remove ${id}`).click();
    await confirm(page, id, "Remove");
    await page.getByText("No sandboxes yet.").waitFor();
    await page.getByText(`Removed ${id}.`).waitFor();
    await page.close();
  });

  test("five hundred: filtered, sorted, selected, changed and removed together", async () => {
    await using many = await ConsoleServer.create(500);
    const page = await many.open(context);
    await rows(page).nth(499).waitFor();
    for (const width of [360, 1440]) {
      await page.setViewportSize({ width, height: 900 });
      assert.equal(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true, String(width));
      assert.deepEqual(await page.evaluate(HIDDEN_BUTTONS), [], String(width));
    }
    const ids = many.world.sandboxes.list().map(({ id }) => id);
    const running = many.world.sandboxes.list().filter(({ state }) => state === "running");
    const chosen = running[200]?.id ?? "";
    busy(chosen, many, 87);
    await button(page, "CPU").click();
    await button(page, "CPU").click();
    await rows(page).first().getByText("87 %").waitFor();
    assert.match((await rows(page).first().textContent()) ?? "", new RegExp(chosen));

    await page.getByLabel("Filter").fill("team=search worker-");
    const found = many.world.sandboxes.list().filter(({ metadata }) => metadata.team === "search").length;
    await page.getByText(`${found} of 500 sandboxes`).waitFor();
    assert.equal(await rows(page).count(), found);
    await page.getByLabel("State").selectOption("paused");
    const paused = many.world.sandboxes
      .list()
      .filter(({ metadata, state }) => metadata.team === "search" && state === "paused");
    await page.getByText(`${paused.length} of 500 sandboxes`).waitFor();
    await page.getByLabel("Select all").check();
    const bulk = page.getByRole("group", { name: "Selected sandboxes" });
    await bulk.getByText(`${paused.length} selected`).waitFor();
    assert.equal(await bulk.getByRole("button", { name: /^Pause/ }).isDisabled(), true, "they are");
    await bulk.getByRole("button", { name: /^Resume/ }).click();
    await page.getByText(`Resumed ${paused.length} sandboxes.`).waitFor();
    assert.ok(paused.every(({ id }) => many.world.sandboxes.get(id).state === "running"));
    await bulk.getByRole("button", { name: /^Remove/ }).click();
    await confirm(page, String(paused.length), `Remove ${paused.length}`);
    await page.getByText(`Removed ${paused.length} sandboxes.`).waitFor();
    assert.equal(many.world.sandboxes.list().length, ids.length - paused.length);
    // Each of the other changes.
    await page.getByLabel("State").selectOption("");
    await page.getByLabel("Filter").fill("worker-001");
    const [one] = many.world.sandboxes.list().filter(({ name }) => name === "worker-001");
    await page.getByLabel("Select worker-001").check();
    for (const [label, said] of [
      ["Checkpoint", "Saved a checkpoint of worker-001."],
      ["Extend 30 min", "30 minutes from now for worker-001."],
      ["Pause", "Paused worker-001."],
      ["Suspend", "Suspended worker-001."],
      ["Resume", "Resumed worker-001."],
    ] as const) {
      await bulk.getByRole("button", { name: `${label} 1 sandbox` }).click();
      await page.getByText(said).waitFor();
    }
    await button(page, "Clear selection").click();
    await button(page, "Pause worker-001").click();
    await button(page, "Resume worker-001").waitFor();
    assert.equal(many.world.sandboxes.get(one?.id ?? "").state, "paused");
    await page.close();
  });

  test("a server that is gone, or hangs, is seen, and the page goes on by itself when it is back", async (t) => {
    const page = await server.open(context);
    const gone = page.getByText("The server does not answer since");
    await rows(page).first().waitFor();
    await server.kill();
    const killed = performance.now();
    await gone.waitFor({ timeout: 10_000 });
    const seen = performance.now() - killed;
    assert.match(await page.title(), /^\(no answer\)/);
    const [id = ""] = await server.spawn(1);
    await server.start();
    await gone.waitFor({ state: "detached" });
    await page.getByRole("link", { name: id }).waitFor();
    // The stream of events is there again, too: nobody asks for the list.
    const [next = ""] = await server.spawn(1);
    await page.getByRole("link", { name: next }).waitFor();
    t.diagnostic(`seen ${Math.round(seen)} ms after it was killed`);
    // One that takes requests and says nothing is as good as gone.
    const goOn = server.hang();
    await gone.waitFor();
    goOn();
    await gone.waitFor({ state: "detached" });
    await page.close();
  });

  test("suspended by idleness is told from suspended by hand: the first wakes on use", async () => {
    const { sandboxes, clock } = server.world;
    const kept = { owner: "default", idleTimeoutMs: 5_000, idleAction: "suspend" } as const;
    const { id: idle } = await sandboxes.spawn({ ...kept, name: "sleeper" });
    const { id: asked } = await sandboxes.spawn({ owner: "default", name: "put-away" });
    await sandboxes.suspend(asked);
    await clock.pass(7_000);
    const page = await server.open(context);
    await page.getByRole("row", { name: /sleeper.*suspended wakes on use/ }).waitFor();
    await page.getByRole("row", { name: /put-away.*suspended (?!wakes)/ }).waitFor();
    await page.getByLabel("Filter").fill("wakes");
    await rows(page).nth(1).waitFor({ state: "detached" });
    assert.equal(await rows(page).count(), 1);
    await page.goto(`${server.url}/ui/#/sandboxes/${idle}/events`);
    await page.getByRole("main").getByText("wakes on use").waitFor();
    await page.getByRole("row", { name: /sandbox\.suspended idle/ }).waitFor();
    await Promise.all([sandboxes.destroy(idle), sandboxes.destroy(asked)]);
    await page.close();
  });

  test("what a state does not allow is not offered; every change is said", async () => {
    const [id = ""] = await server.spawn(1);
    const page = await server.open(context, `#/sandboxes/${id}/details`);
    const enabled = () =>
      page
        .getByRole("group", { name: "Actions" })
        .getByRole("button")
        .evaluateAll((all) =>
          (all as { disabled: boolean; textContent: string }[])
            .filter((each) => !each.disabled)
            .map((each) => each.textContent),
        );
    await page.getByRole("main").getByText("running", { exact: true }).waitFor();
    assert.deepEqual(await enabled(), ["Pause", "Suspend", "Fork", "Checkpoint", "Extend 30 min", "Remove"]);
    await button(page, "Pause").click();
    await page.getByText(`Paused ${id}.`).waitFor();
    await page.getByRole("main").getByText("paused", { exact: true }).waitFor();
    assert.deepEqual(await enabled(), ["Suspend", "Resume", "Checkpoint", "Extend 30 min", "Remove"]);
    await button(page, "Suspend").click();
    await page.getByRole("main").getByText("suspended", { exact: true }).waitFor();
    assert.deepEqual(await enabled(), ["Resume", "Extend 30 min", "Remove"]);
    await button(page, "Resume").click();
    await page.getByRole("main").getByText("running", { exact: true }).waitFor();
    await button(page, "Extend 30 min").click();
    await page.getByText(`30 minutes from now for ${id}.`).waitFor();
    await button(page, "Checkpoint").click();
    await page.getByText(`Saved a checkpoint of ${id}.`).waitFor();
    await page.getByRole("link", { name: "Checkpoints" }).click();
    await page.getByLabel("Name").fill("here");
    await button(page, "Save a checkpoint").click();
    await page.getByText("Saved here.").waitFor();
    await button(page, "Go back to here").click();
    await confirm(page, "here", "Go back");
    await page.getByText(`${id} is as it was at here.`).waitFor();
    await button(page, "Remove here").click();
    await confirm(page, "here", "Remove");
    await page.getByText("Removed here.").waitFor();
    await button(page, "Fork").click();
    await page.waitForURL((url) => !url.hash.includes(id));
    // Its machine dies: the state says so, with the reason and the console's last lines.
    const copy = new URL(page.url()).hash.split("/")[2] ?? "";
    server.world.provider.machinesById.get(copy)?.die();
    await page.getByText("the last line").waitFor();
    assert.deepEqual(await enabled(), ["Extend 30 min", "Remove"]);
    await button(page, "Remove").click();
    await confirm(page, copy, "Remove");
    await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
    // One that is gone: what is known of it, with reasons, also after a reload.
    await page.goto(`${server.url}/ui/#/sandboxes/${copy}/events`);
    await page.getByRole("heading", { name: `${copy} is gone` }).waitFor();
    await page.getByRole("row", { name: /sandbox\.destroyed requested/ }).waitFor();
    await page.getByRole("row", { name: /sandbox\.error/ }).waitFor();
    await page.close();
  });

  test("a spawn by the form, and the same as a command and as programs; an error is beside its field", async () => {
    const page = await server.open(context);
    await page.getByRole("link", { name: "New sandbox" }).click();
    const form = page.getByRole("form", { name: "New sandbox" });
    await form.getByRole("combobox", { name: "Image" }).fill("stacyvm/busybox");
    await form.getByLabel("Name", { exact: true }).fill("it's mine");
    await form.getByLabel("Time limit").fill("1h");
    await button(page, "Start").click();
    await page.locator("[aria-invalid=true]").waitFor();
    assert.equal(await form.getByLabel("Name", { exact: true }).getAttribute("aria-invalid"), "true");
    await form.getByLabel("Name", { exact: true }).fill("mine-1");
    await form.getByLabel("Memory, MiB").fill("512");
    await form.getByLabel("Disk, MiB").fill("256");
    await form.getByLabel("Environment").fill("TOKEN=a b\nDEBUG=1");
    await form.getByLabel("Labels").fill("nonsense");
    await form.getByLabel("Time limit").fill("soon");
    await button(page, "Start").click();
    await form.locator("small").getByText("nonsense: write it as NAME=value").waitFor();
    await form.getByLabel("Labels").fill("team=web");
    await button(page, "Start").click();
    const limit = form.getByLabel("Time limit");
    await page.locator("[aria-invalid=true]").waitFor();
    assert.equal(await limit.getAttribute("aria-invalid"), "true");
    assert.equal(
      await limit.evaluate(
        (element) =>
          element === (globalThis as unknown as { document: { activeElement: unknown } }).document.activeElement,
      ),
      true,
    );
    await limit.fill("2h");
    const code = page.getByLabel("the CLI form", { exact: true });
    assert.match(
      (await code.textContent()) ?? "",
      /stacyvm spawn \\\n {2}stacyvm\/busybox \\\n {2}--name mine-1 \\\n {2}--memory 512m \\\n {2}--disk 256m \\\n {2}--ttl 2h \\\n {2}--env 'TOKEN=a b' \\\n {2}--env DEBUG=1 \\\n {2}--label team=web/,
    );
    for (const [language, text] of [
      ["curl", /"memory_mb": 512[\s\S]*"TOKEN": "a b"/],
      ["TypeScript", /memoryMb: 512/],
      ["Python", /memory_mb=512,/],
    ] as const) {
      await button(page, language).click();
      assert.match((await page.getByLabel(`the ${language} form`, { exact: true }).textContent()) ?? "", text);
    }
    await button(page, "Start").click();
    await page.getByRole("heading", { name: "mine-1" }).waitFor();
    const [made] = server.world.sandboxes.list().filter(({ name }) => name === "mine-1");
    assert.deepEqual(
      [made?.image, made?.memoryMiB, made?.diskMiB, made?.metadata.team],
      ["stacyvm/busybox", 512, 256, "web"],
    );
    // One that fails: what is said stays beside the form, and the events have it.
    server.world.provider.spawnFailure = new Error("the monitor did not start");
    await page.goto(`${server.url}/ui/#/new?image=stacyvm/busybox`);
    await button(page, "Start").click();
    await form.getByText(/the monitor did not start|internal/).waitFor();
    server.world.provider.spawnFailure = undefined;
    await page.goto(`${server.url}/ui/#/events`);
    await page.getByLabel("Show").selectOption("failures");
    await page.getByRole("row", { name: /sandbox\.error.*the monitor did not start/ }).waitFor();
    await page.close();
  });

  test("images: pulled with progress, started from, removed; what is not there is said beside the field", async () => {
    const page = await server.open(context, "#/images");
    await page.getByLabel("Reference").fill("no/such");
    await button(page, "Pull").click();
    await page.getByText("there is no image no/such").waitFor();
    await page.getByLabel("Reference").fill("python:3.12");
    await button(page, "Pull").click();
    await page.getByText("pulling 30.0 MiB of 60.0 MiB").waitFor();
    assert.equal(await page.getByRole("progressbar", { name: "Pull" }).getAttribute("value"), String(30 * 2 ** 20));
    server.images.pulled.resolve();
    await page.getByRole("cell", { name: /^python:3.12/ }).waitFor();
    await page.getByRole("cell", { name: "60.0 MiB" }).waitFor();
    await button(page, "Remove python:3.12").click();
    await confirm(page, "python:3.12", "Remove");
    await page.getByRole("cell", { name: /^python:3.12/ }).waitFor({ state: "detached" });
    await page.close();
  });

  test("templates, keys, quotas and the audit log", async () => {
    const page = await server.open(context, "#/templates");
    await button(page, "New template").click();
    await page.getByLabel("Name").fill("python-web");
    await page.getByRole("combobox", { name: "Image" }).fill("stacyvm/python");
    await page.getByLabel("Environment").fill("A=1");
    await button(page, "Save").click();
    await page.getByText("Saved python-web.").waitFor();
    await button(page, "Edit python-web").click();
    await page.getByLabel("Description").fill("for <b>demos</b>");
    await button(page, "Save").click();
    await page.getByText("for <b>demos</b>").waitFor();
    assert.deepEqual(server.world.sandboxes.templates.get("default", "python-web").env, { A: "1" });
    await button(page, "Start python-web").click();
    await page.getByRole("heading", { name: /^sb-/ }).waitFor();
    await page.goBack();
    await button(page, "Remove python-web").click();
    await confirm(page, "python-web", "Remove");
    await page.getByText("Removed python-web.").waitFor();

    await page.getByRole("link", { name: "Access" }).click();
    await page.getByLabel("Name").fill("ci");
    await button(page, "Make a key").click();
    const secret = (await page.getByLabel("the secret", { exact: true }).textContent()) ?? "";
    assert.match(secret, /^stacyvm_/);
    await button(page, "Rotate ci").click();
    await soon(async () => (await page.locator(".code pre").first().textContent()) !== secret);
    await button(page, "Revoke ci").click();
    await confirm(page, "ci", "Revoke");
    await page.getByRole("row", { name: /^ci .*revoked/ }).waitFor();
    await page.getByLabel("User").fill("alice");
    await page.getByLabel("Most sandboxes").fill("4");
    await page.getByRole("region", { name: "Quotas" }).getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved the quota of alice.").waitFor();
    await button(page, "Edit the quota of alice").click();
    assert.equal(await page.getByLabel("Most sandboxes").inputValue(), "4");
    await button(page, "Remove the quota of alice").click();
    await confirm(page, "alice", "Remove");
    await page.getByRole("cell", { name: "alice", exact: true }).waitFor({ state: "detached" });
    await page.getByRole("region", { name: "Audit log" }).getByRole("button", { name: "Refresh" }).click();
    await page
      .getByRole("cell", { name: /DELETE \/api\/v1\/keys/ })
      .first()
      .waitFor();

    await page.getByRole("link", { name: "Host" }).click();
    await page.getByText("A sandbox can start.").waitFor();
    await button(page, "Examine again").click();
    await page.getByText("load it").waitFor();
    await page.getByRole("row", { name: /^two .*silent/ }).waitFor();
    await page.close();
  });

  test("a key that may only use: what is for administrators is not there", async () => {
    const { secret } = await server.world.keys.create({ name: "user", owner: "bob", scopes: ["use"] }, "test");
    const page = await context.newPage();
    await page.goto(`${server.url}/ui/#key=${secret}`);
    await page.getByText("No sandboxes yet.").waitFor();
    await page.goto(`${server.url}/ui/#/access`);
    await page.getByText("Keys and the audit log are for administrators.").waitFor();
    await page.goto(`${server.url}/ui/#/host`);
    await page.getByRole("heading", { name: "Machines kept ready" }).waitFor();
    assert.equal(await page.getByRole("heading", { name: "Doctor" }).count(), 0);
    await page.close();
  });

  test("by keyboard alone: into the content, to a sandbox, paused, removed, and where the focus is stays clear", async () => {
    const [id = ""] = await server.spawn(1);
    const page = await server.open(context);
    const focused = () => page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel");
    const tabTo = async (wanted: RegExp, key = "Tab"): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        await page.keyboard.press(key);
        if (wanted.test(String(await focused()))) return;
      }
      assert.fail(`${wanted} was not reached; the focus is on ${await focused()}`);
    };
    await page.getByRole("link", { name: id }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to content");
    await page.keyboard.press("Enter");
    assert.equal(await focused(), "Sandboxes");
    await page.keyboard.press("Tab");
    await page.keyboard.type(id); // the filter
    await tabTo(new RegExp(`^${id}$`));
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: id }).waitFor();
    await soon(async () => (await focused()) === id); // on the heading of the new page
    await tabTo(/^Pause$/);
    await page.keyboard.press("Space");
    await page.getByText(`Paused ${id}.`).waitFor();
    await tabTo(/^Remove$/);
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await soon(async () => (await focused()) === "Remove"); // the focus is where it was
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type(id);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
    const message = page.getByText(`Removed ${id}.`);
    await message.waitFor();
    // Messages are the last of the page, and go by themselves: backwards it is not far, however many sandboxes there are.
    await tabTo(/^✕$/, "Shift+Tab");
    await page.keyboard.press("Enter");
    await page.close();
  });

  test("colours by a switch, kept over a reload", async () => {
    const page = await server.open(context);
    const background = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const light = await background();
    await page.getByRole("button", { name: /^Colours: system/ }).click();
    await page.getByRole("button", { name: /^Colours: light/ }).click();
    assert.notEqual(await background(), light);
    await page.reload();
    await page.getByRole("button", { name: /^Colours: dark/ }).waitFor();
    assert.notEqual(await background(), light);
    await page.close();
  });

  test("nothing went wrong in any page", () => {
    assert.deepEqual(wrong, []);
  });
});
