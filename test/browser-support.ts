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
