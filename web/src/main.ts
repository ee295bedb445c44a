/** The console: a page of the server for people. It uses the SDK as any other program does. */
import { render } from "preact";
import { App } from "./app.ts";
import { html } from "./core/html.ts";
import { Live } from "./core/live.ts";
import { KeyPage, NoServer } from "./pages/key.ts";

/** For this tab only, and gone with it. */
const KEY = "stacyvm.key";
const AGAIN_MS = 1_000;

const root = document.querySelector("#root") as HTMLElement;

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
  const live = new Live(location.origin, apiKey);
  try {
    await live.open();
  } catch (error) {
    const { status } = error as { status?: number };
    if (status === 401) return askForKey(apiKey !== undefined);
    // The page was there before its server, or after it.
    render(html`<${NoServer} error=${error} />`, root);
    setTimeout(() => void start(), AGAIN_MS);
    return;
  }
  render(html`<${App} live=${live} />`, root);
}

function askForKey(wrong: boolean): void {
  const enter = (key: string): void => {
    sessionStorage.setItem(KEY, key);
    void start();
  };
  render(html`<${KeyPage} wrong=${wrong} enter=${enter} />`, root);
}

void start();
