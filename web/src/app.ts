/** The page around all pages: where one can go, whether the server is there, short messages, questions. */
import { useEffect, useRef } from "preact/hooks";
import { LiveContext, useLive } from "./core/context.ts";
import { html } from "./core/html.ts";
import type { Live } from "./core/live.ts";
import { type Note, notes } from "./core/notes.ts";
import type { Route } from "./core/route.ts";
import { nameOf } from "./core/states.ts";
import { theme } from "./core/theme.ts";
import { useRoute } from "./core/use-route.ts";
import { useStore } from "./core/use-store.ts";
import { AccessPage } from "./pages/access.ts";
import { EventsPage } from "./pages/events.ts";
import { HostPage } from "./pages/host.ts";
import { ImagesPage } from "./pages/images.ts";
import { SandboxesPage } from "./pages/sandboxes.ts";
import { SavedPage } from "./pages/saved.ts";
import { SpawnPage } from "./pages/spawn.ts";
import { TemplatesPage } from "./pages/templates.ts";
import { Confirm } from "./parts/confirm.ts";
import { SandboxPage } from "./sandbox/page.ts";

const TITLES = {
  sandboxes: "Sandboxes",
  images: "Images",
  templates: "Templates",
  saved: "Snapshots",
  events: "Events",
  host: "Host",
  access: "Access",
} as const;

export function App({ live }: { live: Live }) {
  return html`<${LiveContext.Provider} value=${live}><${Frame} /><//>`;
}

function Frame() {
  const live = useLive();
  const route = useRoute();
  const here = route.page === "sandbox" ? route.id : route.page;
  const title = titleOf(route, live);
  useEffect(() => {
    document.title = `${live.lostSince === undefined ? "" : "(no answer) "}${title} · StacyVM`;
  }, [title, live.lostSince]);
  // Another page is read from its heading on; at the first, the browser's own order is right.
  const before = useRef(here);
  useEffect(() => {
    if (before.current === here) return;
    before.current = here;
    document.querySelector<HTMLElement>("main h1")?.focus();
    scrollTo(0, 0);
  }, [here]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header>
      <a class="brand" href="#/">StacyVM</a>
      <nav aria-label="Main">
        ${Object.entries(TITLES).map(([page, name]) => html`<a href=${page === "sandboxes" ? "#/" : `#/${page}`} aria-current=${current(page, route) ? "page" : undefined}>${name}</a>`)}
      </nav>
      <div class="about">
        <span class="soft from-tablet">version ${live.version}</span>
        <a href="/docs">API docs</a>
        <${ThemeSwitch} />
      </div>
    </header>
    <${Lost} live=${live} />
    <main id="main"><${Page} key=${here} route=${route} /></main>
    <${NoteList} />
    <${Confirm} />
  `;
}

function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>("main h1")?.focus();
}

function current(page: string, route: Route): boolean {
  return page === route.page || (page === "sandboxes" && (route.page === "sandbox" || route.page === "new"));
}

function titleOf(route: Route, live: Live): string {
  if (route.page === "new") return "New sandbox";
  if (route.page !== "sandbox") return TITLES[route.page];
  const info = live.find(route.id);
  return `${info === undefined ? route.id : nameOf(info)}, ${route.tab}`;
}

function Page({ route }: { route: Route }) {
  switch (route.page) {
    case "sandbox":
      return html`<${SandboxPage} id=${route.id} tab=${route.tab} of=${route.of} />`;
    case "new":
      return html`<${SpawnPage} fill=${route.fill} />`;
    case "images":
      return html`<${ImagesPage} />`;
    case "templates":
      return html`<${TemplatesPage} />`;
    case "saved":
      return html`<${SavedPage} />`;
    case "events":
      return html`<${EventsPage} />`;
    case "host":
      return html`<${HostPage} />`;
    case "access":
      return html`<${AccessPage} />`;
    default:
      return html`<${SandboxesPage} />`;
  }
}

/** Always there, so that a screen reader says what comes into it. */
function Lost({ live }: { live: Live }) {
  const { lostSince } = live;
  return html`
    <div role="alert" class=${lostSince === undefined ? "" : "lost"}>
      ${lostSince !== undefined && html`The server does not answer since ${new Date(lostSince).toLocaleTimeString()}. What you see is from before; the page goes on by itself as soon as the server is back.`}
    </div>
  `;
}

function ThemeSwitch() {
  const { choice } = useStore(theme);
  return html`<button type="button" class="quiet" aria-label=${`Colours: ${choice}. Change`} title="Colours: system, light, dark" onClick=${() => theme.next()}>${{ system: "◐ System", light: "☀ Light", dark: "☾ Dark" }[choice]}</button>`;
}

function NoteList() {
  const { list } = useStore(notes);
  return html`<div id="notes" role="log" aria-label="Messages" aria-live="polite">${list.map((note) => html`<${OneNote} key=${note.id} note=${note} />`)}</div>`;
}

function OneNote({ note }: { note: Note }) {
  const hold = (): void => notes.hold(note.id);
  const release = (): void => notes.release(note);
  return html`
    <div class=${`message ${note.kind}`} onPointerEnter=${hold} onPointerLeave=${release} onFocusIn=${hold} onFocusOut=${release}>
      <span>${note.text}</span>
      <button type="button" class="quiet" aria-label="Close message" onClick=${() => notes.close(note.id)}>✕</button>
    </div>
  `;
}
