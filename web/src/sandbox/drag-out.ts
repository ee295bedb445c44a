/** A file's name that can be dragged to the desktop. The key is in a header, so what is dragged is fetched when the pointer goes down. */
import { useRef } from "preact/hooks";
import type { FileInfo, Sandbox } from "../../../sdk/src/index.ts";
import { html } from "../core/html.ts";

/** More than this is for the button: it would not be there when the drag begins. */
const DRAGGED_BYTES = 8 * 2 ** 20;
const KEPT_MS = 60_000;

export function DragOut({ sandbox, file, open }: { sandbox: Sandbox; file: FileInfo; open: () => void }) {
  const url = useRef<string | undefined>(undefined);
  const fetchNow = async (): Promise<void> => {
    if (url.current !== undefined || file.size > DRAGGED_BYTES || file.kind !== "file") return;
    try {
      url.current = await objectUrl(sandbox, file);
      setTimeout(() => {
        url.current = undefined;
      }, KEPT_MS);
    } catch {} // the drag carries the name alone
  };
  const drag = (event: DragEvent): void => {
    event.dataTransfer?.setData("text/plain", file.path);
    if (url.current === undefined) return;
    event.dataTransfer?.setData(
      "DownloadURL",
      `application/octet-stream:${file.name.replaceAll(":", "_")}:${url.current}`,
    );
  };
  return html`<button type="button" class="link" draggable="true" onPointerDown=${fetchNow} onDragStart=${drag} onClick=${open}>${file.name}</button>`;
}

export async function saveAs(sandbox: Sandbox, file: FileInfo): Promise<void> {
  const anchor = document.createElement("a");
  anchor.href = await objectUrl(sandbox, file);
  anchor.download = file.name;
  anchor.click();
}

async function objectUrl(sandbox: Sandbox, file: FileInfo): Promise<string> {
  const data = (await sandbox.files.readBytes(file.path)) as Uint8Array<ArrayBuffer>;
  // With a type, else the browser looks into the content and adds an ending to the name.
  const url = URL.createObjectURL(new Blob([data], { type: "application/octet-stream" }));
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
  return url;
}
