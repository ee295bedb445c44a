/** Before the server lets anybody in. */
import { useState } from "preact/hooks";
import { html } from "../core/html.ts";
import { textOf } from "../core/notes.ts";
import { TextField } from "../parts/controls.ts";

export function KeyPage({ wrong, enter }: { wrong: boolean; enter: (key: string) => void }) {
  const [key, setKey] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    enter(key);
  };
  return html`
    <main class="alone">
      <h1>StacyVM</h1>
      <form onSubmit=${submit}>
        <${TextField} label="API key" type="password" autocomplete="off" required autofocus value=${key} set=${setKey} error=${wrong ? "This key is not valid." : undefined} />
        <button class="main">Sign in</button>
      </form>
      <p class="soft">Make one on the server's host: <code>stacyvm key create me</code>. The link that <code>stacyvm serve</code> prints on a terminal brings one. It is kept for this tab only.</p>
    </main>
  `;
}

export function NoServer({ error }: { error: unknown }) {
  return html`
    <main class="alone">
      <h1>StacyVM</h1>
      <p role="alert" class="wrong">The server does not answer: ${textOf(error)}</p>
      <p class="soft">The page tries again every second.</p>
    </main>
  `;
}
