/** Text of a program, with a button that copies it. */
import { html } from "../core/html.ts";
import { Action } from "./controls.ts";

export function Code({ text, label }: { text: string; label: string }) {
  return html`
    <div class="code">
      <pre tabindex="0" aria-label=${label}>${text}</pre>
      <${Action} label="Copy" name=${`Copy ${label}`} done="Copied." run=${() => copy(text)} />
    </div>
  `;
}

export async function copy(text: string): Promise<void> {
  // Over plain HTTP from another host a browser has no clipboard for pages, but still knows the old command.
  if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text);
  const box = document.createElement("textarea");
  box.value = text;
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}
