/** What happened, newest first: what is new comes by itself, what is older on request. */
import { useEffect, useState } from "preact/hooks";
import type { StacyEvent } from "../../../sdk/src/index.ts";
import { useLive } from "../core/context.ts";
import { moment, ms } from "../core/format.ts";
import { html } from "../core/html.ts";
import { textOf } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { Action, Empty } from "./controls.ts";
import { classes } from "./table.ts";

const PAGE = 100;

/** @param types of `sandbox.*` and the like @param sandboxId of one sandbox only */
export function EventList({ types, sandboxId }: { types?: string[] | undefined; sandboxId?: string }) {
  const live = useLive();
  const [older, setOlder] = useState<{ events: StacyEvent[]; next: string | undefined }>({
    events: [],
    next: undefined,
  });
  const [error, setError] = useState<string | undefined>();
  const about = `${types?.join()} ${sandboxId}`;
  const more = async (before: string | undefined, events: StacyEvent[]): Promise<void> => {
    try {
      // A page may be empty and still not be the last: a filter that matches few.
      for (let at = before, found = events; ; ) {
        const page = await live.client.eventHistory({ before: at, limit: PAGE, types, sandboxId });
        found = [...found, ...page.events];
        at = page.next;
        if (found.length > events.length || at === undefined) return setOlder({ events: found, next: at });
      }
    } catch (thrown) {
      setError(textOf(thrown));
    }
  };
  useEffect(() => void more(undefined, []), [about]);

  const newest = number(older.events[0]);
  const fits = (event: StacyEvent): boolean =>
    (sandboxId === undefined || event.sandboxId === sandboxId) &&
    (types === undefined ||
      types.some((type) => (type.endsWith("*") ? event.type.startsWith(type.slice(0, -1)) : event.type === type)));
  const fresh = live.events.filter((event) => number(event) > newest && fits(event));
  const all = [...fresh, ...older.events];
  const wide = sandboxId === undefined;
  return html`
    ${error !== undefined && html`<p role="alert" class="wrong">${error}</p>`}
    ${
      all.length === 0
        ? html`<${Empty}>Nothing yet.<//>`
        : html`
        <div class="scroll" tabindex="0" role="group" aria-label="Events">
          <table>
            <thead><tr><th scope="col">When</th><th scope="col">What</th>${wide && html`<th scope="col" class=${classes(false, "tablet")}>Sandbox</th>`}<th scope="col">Why, and what of it</th></tr></thead>
            <tbody>
              ${all.map(
                (event) => html`
                <tr key=${event.id} class=${bad(event) ? "bad" : ""}>
                  <td>${moment(event.timestamp)}</td>
                  <td>${event.type}</td>
                  ${wide && html`<td class=${classes(false, "tablet")}>${event.sandboxId !== undefined && html`<a class="mono" href=${sandboxLink(event.sandboxId, "events")}>${event.sandboxId}</a>`}</td>`}
                  <td class="text">${wordsOf(event)}</td>
                </tr>`,
              )}
            </tbody>
          </table>
        </div>`
    }
    ${older.next !== undefined && html`<div class="bar"><${Action} label="Show older" run=${() => more(older.next, older.events)} /></div>`}
  `;
}

function number(event: StacyEvent | undefined): number {
  return Number(event?.id.replace("evt-", "") ?? 0);
}

function bad({ type }: StacyEvent): boolean {
  return /error|failed|rejected|refused|limit|timeout/.test(type);
}

/** The reason first; then what else is known, by name. */
export function wordsOf({ data = {} }: StacyEvent): string {
  const { reason, message, ...rest } = data as Record<string, unknown>;
  const words = [reason, message].filter((each) => typeof each === "string" && each !== "");
  const others = Object.entries(rest)
    .filter(([name, value]) => value !== null && value !== "" && name !== "provider")
    .map(([name, value]) => `${name.replaceAll("_", " ").replace(/ ms$/, "")} ${shown(name, value)}`);
  return [...words, ...others].join(", ");
}

function shown(name: string, value: unknown): string {
  if (name.endsWith("_ms") && typeof value === "number") return ms(value);
  if (Array.isArray(value)) return value.join(" ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
