/** A real browser, and what it must not do: complain, or ask anybody but the server. */
import { type Browser, chromium, type Page } from "playwright-core";
import { firstExisting } from "../src/host/exists.ts";

/** Nothing of the browser's own goes to the network. */
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"];

const path = await firstExisting(
  [process.env.STACYVM_TEST_BROWSER ?? "", "/usr/bin/chromium", "/usr/bin/chromium-browser"].filter(Boolean),
);

export const noBrowser =
  path === undefined ? "needs Chromium: install it, or name it with STACYVM_TEST_BROWSER" : false;

export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: path as string, args: QUIET });
}

/** @returns complaints, as they come */
export function watchPage(page: Page, ...origins: string[]): string[] {
  const wrong: string[] = [];
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of 401/.test(message.text())) wrong.push(message.text());
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (!origins.includes(origin) && protocol !== "blob:" && protocol !== "data:") wrong.push(`asked ${origin}`);
  });
  return wrong;
}

/**
 * Looks until there is something. The browser's own waiting looks by `eval`, which the page's policy refuses from the second time on.
 * @throws Error after 60 s
 */
export async function soon<T>(look: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + 60_000; ; ) {
    const found = await look();
    if (found) return found;
    if (performance.now() > until) throw new Error("it did not come within 60 s");
    await new Promise((wake) => setTimeout(wake, 50));
  }
}
