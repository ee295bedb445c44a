/** Small parts of every page. */
import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import { html } from "../core/html.ts";
import { notes, textOf } from "../core/notes.ts";

export interface ActionProps {
  label: string;
  /** What a screen reader says, where the label alone is not enough: "Remove sb-1". */
  name?: string | undefined;
  kind?: "main" | "danger" | "quiet" | undefined;
  disabled?: boolean | undefined;
  /** Why it is disabled, or what it does. */
  title?: string | undefined;
  /** Said when it is done. */
  done?: string | undefined;
  /** May fail: that is said. While it runs the button does nothing. */
  run: () => Promise<unknown> | unknown;
}

export function Action({ label, name, kind, disabled = false, title, done, run }: ActionProps) {
  const [busy, setBusy] = useState(false);
  const click = async (): Promise<void> => {
    if (busy) return;
    setBusy(true);
    try {
      await run();
      if (done !== undefined) notes.say(done);
    } catch (error) {
      notes.fail(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" class=${kind} disabled=${disabled} title=${title} aria-label=${name} aria-busy=${busy} onClick=${click}>${label}</button>`;
}

export function Field({
  label,
  hint,
  error,
  wide,
  children,
}: {
  label: string;
  hint?: string;
  error?: string | undefined;
  wide?: boolean;
  /** Makes the control, with what ties it to the label and to the error. */
  children: (ties: Record<string, unknown>) => ComponentChildren;
}) {
  const id = useId();
  const said = error !== undefined || hint !== undefined;
  const ties = {
    id,
    ...(said ? { "aria-describedby": `${id}-said` } : {}),
    ...(error === undefined ? {} : { "aria-invalid": "true" }),
  };
  return html`
    <div class=${`field${wide === true ? " wide" : ""}`}>
      <label for=${id}>${label}</label>
      ${children(ties)}
      ${said && html`<small id=${`${id}-said`} class=${error === undefined ? "soft" : "wrong"}>${error ?? hint}</small>`}
    </div>
  `;
}

/** Text with its label, kept by the caller. */
export function TextField({
  label,
  value,
  set,
  hint,
  error,
  wide,
  rows,
  list,
  ...rest
}: {
  label: string;
  value: string;
  set: (value: string) => void;
  hint?: string;
  error?: string | undefined;
  wide?: boolean;
  /** More than one line. */
  rows?: number;
  /** Ready answers. */
  list?: readonly string[];
  [attribute: string]: unknown;
}) {
  const listId = useId();
  const onInput = (event: { currentTarget: { value: string } }): void => set(event.currentTarget.value);
  return html`
    <${Field} label=${label} hint=${hint} error=${error} wide=${wide}>
      ${(ties: object) =>
        rows === undefined
          ? html`<input ...${ties} ...${rest} value=${value} onInput=${onInput} list=${list === undefined ? undefined : listId} />
              ${list !== undefined && html`<datalist id=${listId}>${list.map((each) => html`<option value=${each}></option>`)}</datalist>`}`
          : html`<textarea ...${ties} ...${rest} rows=${rows} value=${value} onInput=${onInput}></textarea>`}
    <//>
  `;
}

export function SelectField({
  label,
  value,
  set,
  options,
  hint,
}: {
  label: string;
  value: string;
  set: (value: string) => void;
  /** Values with what is shown. */
  options: readonly (readonly [string, string])[];
  hint?: string;
}) {
  return html`
    <${Field} label=${label} hint=${hint}>
      ${(ties: object) => html`
        <select ...${ties} value=${value} onChange=${(event: { currentTarget: { value: string } }) => set(event.currentTarget.value)}>
          ${options.map(([each, shown]) => html`<option value=${each} selected=${each === value}>${shown}</option>`)}
        </select>`}
    <//>
  `;
}

/** @param note why @param wakes its next use brings it back */
export function State({
  state,
  note,
  wakes = false,
}: {
  state: string;
  note?: string | undefined;
  wakes?: boolean | undefined;
}) {
  return html`<span class=${`state ${state}`} title=${note}>${state}${note !== undefined && html`<span class="visually-hidden">: ${note}</span>`}</span>${wakes && html` <span class="wakes soft">wakes on use</span>`}`;
}

/** A part of a page with its heading. */
export function Section({
  title,
  actions,
  children,
}: {
  title: string;
  actions?: ComponentChildren;
  children?: ComponentChildren;
}) {
  const id = useId();
  return html`
    <section aria-labelledby=${id}>
      <div class="bar"><h2 id=${id}>${title}</h2><div class="bar end">${actions}</div></div>
      ${children}
    </section>
  `;
}

export function Empty({ children }: { children?: ComponentChildren }) {
  return html`<p class="empty">${children}</p>`;
}

/** Facts by name; those that are not there are left out. */
export function Facts({ of }: { of: readonly (readonly [string, unknown])[] }) {
  return html`
    <dl class="facts">
      ${of.map(([name, value]) => (value === undefined || value === "" ? null : html`<div><dt>${name}</dt><dd>${value}</dd></div>`))}
    </dl>
  `;
}

/** @returns whether it worked; else why not, for beside the form */
export async function attempt(work: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return textOf(error);
  }
}
