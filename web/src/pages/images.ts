/** Images of this host: pulled with progress, looked at, removed. */
import { useState } from "preact/hooks";
import type { Image, PullProgress } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { bytes, distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes, textOf } from "../core/notes.ts";
import { spawnLink } from "../core/route.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, Section, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";

export function ImagesPage() {
  const live = theLive();
  const { client } = live;
  const images = useAsked(() => client.images.list(), []);
  const total = (images.value ?? []).reduce((sum, image) => sum + image.bytes, 0);
  const columns: Column<Image>[] = [
    {
      name: "Image",
      by: ({ reference }) => reference,
      cell: ({ reference, digest }) => html`${reference}<span class="under mono">${digest.slice(0, 19)}</span>`,
    },
    { name: "Size", number: true, by: (image) => image.bytes, cell: (image) => bytes(image.bytes) },
    {
      name: "Made",
      from: "tablet",
      by: ({ createdAt }) => createdAt,
      cell: ({ createdAt }) => `${distance(createdAt)} ago`,
    },
    {
      name: "Command",
      from: "desktop",
      cell: ({ config }) => html`<code>${[...config.entrypoint, ...config.cmd].join(" ").slice(0, 80)}</code>`,
    },
    {
      name: "",
      cell: ({ reference }) => html`
        <div class="actions">
          <a class="button" href=${spawnLink({ image: reference })} aria-label=${`Start ${reference}`}>Start</a>
          ${
            live.admin &&
            html`<${Action} label="Remove" name=${`Remove ${reference}`} kind="danger" run=${async () => {
              const question = {
                title: `Remove ${reference}?`,
                text: "Its golden snapshots go with it. An image that a sandbox uses is not removed.",
                word: reference,
                verb: "Remove",
              };
              if (!(await confirmed(question))) return;
              await client.images.remove(reference);
              notes.say(`Removed ${reference}.`);
              await images.again();
            }} />`
          }
        </div>`,
    },
  ];
  return html`
    <h1 tabindex="-1">Images</h1>
    <${Pull} done=${images.again} />
    <${Section} title="On this host" actions=${html`<span class="soft">${images.value === undefined ? "" : `${images.value.length}, ${bytes(total)}`}</span><${Action} label="Refresh" run=${images.again} />`}>
      ${images.error !== undefined && html`<p role="alert" class="wrong">${images.error}</p>`}
      ${images.value !== undefined && html`<${Table} label="Images" columns=${columns} rows=${images.value} keyOf=${({ reference }: Image) => reference} empty="No images yet. Pull one above, or start a sandbox: its image is pulled then." />`}
    <//>
  `;
}

function Pull({ done }: { done: () => Promise<void> }) {
  const { client } = theLive();
  const [reference, setReference] = useState("");
  const [progress, setProgress] = useState<PullProgress | undefined>();
  const [error, setError] = useState<string | undefined>();
  const [pulling, setPulling] = useState<AbortController | undefined>();
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const abort = new AbortController();
    setPulling(abort);
    setError(undefined);
    setProgress({ step: "asking the registry" });
    try {
      const { reference: name } = await client.images.pull(reference.trim(), {
        onProgress: setProgress,
        signal: abort.signal,
      });
      notes.say(`${name} is here.`);
      setReference("");
      await done();
    } catch (thrown) {
      setError(abort.signal.aborted ? "Stopped." : textOf(thrown));
    } finally {
      setPulling(undefined);
      setProgress(undefined);
    }
  };
  const { step = "", done: at, total, unit } = progress ?? {};
  const amount =
    at === undefined
      ? ""
      : unit === "bytes"
        ? `${bytes(at)}${total === undefined ? "" : ` of ${bytes(total)}`}`
        : `${at}${total === undefined ? "" : ` of ${total}`}`;
  return html`
    <${Section} title="Pull an image">
      <form class="bar" onSubmit=${submit}>
        <${TextField} label="Reference" required placeholder="python:3.12-slim" value=${reference} set=${setReference} error=${error} spellcheck=${false} />
        ${pulling === undefined ? html`<button class="main">Pull</button>` : html`<${Action} label="Stop" run=${() => pulling.abort()} />`}
      </form>
      ${
        progress !== undefined &&
        html`
        <div class="progress" role="status">
          <progress aria-label="Pull" value=${total === undefined ? undefined : at} max=${total ?? 1}></progress>
          <span>${step} ${amount}</span>
        </div>`
      }
    <//>
  `;
}
