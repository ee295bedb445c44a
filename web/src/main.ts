/** The console: a page of the server for people. It uses the SDK as any other program does. */
import { Client } from "../../sdk/src/index.ts";
import { el, note } from "./dom.ts";
import { Live } from "./live.ts";
import { overview } from "./overview.ts";
import { sandboxPage } from "./sandbox-page.ts";

/** For this tab only, and gone with it. */
const KEY = "stacyvm.key";

const root = document.querySelector("#main") as HTMLElement;
const status = document.querySelector("#status") as HTMLElement;

/** The link that the server's start prints has one behind the #, which browsers send to nobody. */
function takeKey(): void {
  const found = /^#key=(.+)$/.exec(location.hash)?.[1];
  if (found === undefined) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found));
  // Nor does it stay in the address or in the history.
  history.replaceState(null, "", location.pathname);
}

async function start(): Promise<void> {
  takeKey();
  const apiKey = sessionStorage.getItem(KEY) ?? undefined;
  const client = new Client({ url: location.origin, apiKey, timeoutMs: 30_000 });
  const live = new Live(client);
  try {
    await live.refresh();
  } catch (error) {
    if ((error as { code?: string }).code !== "UNAUTHORIZED") throw error;
    askForKey(apiKey !== undefined);
    return;
  }
  const { version } = await client.health();
  status.textContent = `version ${version}`;
  void live.follow(new AbortController().signal).catch(note);
  let end = (): void => {};
  const route = (): void => {
    end();
    const id = /^#\/(sb-[0-9a-f]{8})$/.exec(location.hash)?.[1];
    root.replaceChildren();
    end = (id === undefined ? overview : sandboxPage(id))(live, root);
  };
  addEventListener("hashchange", route);
  route();
}

function askForKey(wrong: boolean): void {
  const input = el("input", { type: "password", autocomplete: "off", required: true, name: "key" });
  const form = el(
    "form",
    { class: "row" },
    el("label", {}, "The server's key", input),
    el("button", { class: "main" }, "Enter"),
    wrong ? el("span", { class: "soft" }, "That one is not valid.") : undefined,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value);
    root.replaceChildren();
    start().catch(note);
  });
  root.replaceChildren(el("section", {}, el("h2", {}, "This server needs a key"), form));
  input.focus();
}

start().catch(note);
