/** A file's content: pictures and plots as such, text to read and change. */
import { useEffect, useState } from "preact/hooks";
import type { FileInfo, Sandbox } from "../../../sdk/src/index.ts";
import { bytes } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes, textOf } from "../core/notes.ts";
import { Action, Section } from "../parts/controls.ts";
import { saveAs } from "./drag-out.ts";

/** Longer text is downloaded. */
const TEXT_BYTES = 512 * 1024;
const PICTURE_BYTES = 16 * 2 ** 20;
const PICTURES: Record<string, string> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
  avif: "image/avif",
  bmp: "image/bmp",
  // As a picture: in one, no script runs and nothing is loaded.
  svg: "image/svg+xml",
};

type Content = { picture: string } | { text: string } | { none: string };

export function Viewer({ sandbox, file, close }: { sandbox: Sandbox; file: FileInfo; close: () => void }) {
  const [content, setContent] = useState<Content | undefined>();
  const [text, setText] = useState("");
  useEffect(() => {
    let url: string | undefined;
    let over = false;
    read(sandbox, file).then(
      (found) => {
        if ("picture" in found) url = found.picture;
        if (over) return void (url !== undefined && URL.revokeObjectURL(url));
        setContent(found);
        if ("text" in found) setText(found.text);
      },
      (error: unknown) => {
        if (!over) setContent({ none: textOf(error) });
      },
    );
    return () => {
      over = true;
      if (url !== undefined) URL.revokeObjectURL(url);
    };
  }, [file]);
  const save = async (): Promise<void> => {
    await sandbox.files.write(file.path, text, { mode: Number.parseInt(file.mode, 8) & 0o7777 });
    setContent({ text });
    notes.say(`Saved ${file.name}.`);
  };
  const changed = content !== undefined && "text" in content && content.text !== text;
  return html`
    <${Section} title=${file.name} actions=${html`
      ${changed && html`<${Action} label="Save" kind="main" run=${save} />`}
      <${Action} label="Download" run=${() => saveAs(sandbox, file)} />
      <${Action} label="Close" run=${close} />`}>
      ${content === undefined && html`<p class="empty" role="status">Reading…</p>`}
      ${content !== undefined && "picture" in content && html`<img class="picture" src=${content.picture} alt=${file.name} />`}
      ${content !== undefined && "text" in content && html`<textarea class="mono content" aria-label=${`Content of ${file.name}`} spellcheck=${false} rows=${Math.min(30, text.split("\n").length + 1)} value=${text} onInput=${(event: { currentTarget: HTMLTextAreaElement }) => setText(event.currentTarget.value)}></textarea>`}
      ${content !== undefined && "none" in content && html`<p class="empty">${content.none}</p>`}
    <//>
  `;
}

async function read(sandbox: Sandbox, { path, name, size }: FileInfo): Promise<Content> {
  const type = PICTURES[/\.(\w+)$/.exec(name)?.[1]?.toLowerCase() ?? ""];
  if (type !== undefined && size <= PICTURE_BYTES) {
    const data = (await sandbox.files.readBytes(path)) as Uint8Array<ArrayBuffer>;
    return { picture: URL.createObjectURL(new Blob([data], { type })) };
  }
  if (size > TEXT_BYTES) return { none: `${bytes(size)} are too much to show: download it.` };
  const data = await sandbox.files.readBytes(path);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data);
    return text.includes("\0") ? { none: "It is not text: download it." } : { text };
  } catch {
    return { none: "It is not text: download it." };
  }
}
