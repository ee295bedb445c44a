/** Files: looked through, shown, changed, dragged in and out. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { FileInfo, Sandbox } from "../../../sdk/src/index.ts";
import { bytes, distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes, textOf } from "../core/notes.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, Section, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";
import { DragOut, saveAs } from "./drag-out.ts";
import type { TabProps } from "./tab.ts";
import { Viewer } from "./viewer.ts";

const FIRST = ["/workspace", "/"];

export function FilesTab({ sandbox, info }: TabProps) {
  const [place, setPlace] = useState("");
  const [typed, setTyped] = useState(FIRST[0] ?? "/");
  const [entries, setEntries] = useState<FileInfo[] | undefined>();
  const [error, setError] = useState<string | undefined>();
  const [shown, show] = useState<FileInfo | undefined>();
  const [over, setOver] = useState(false);
  const [sending, setSending] = useState("");
  const chooser = useRef<HTMLInputElement>(null);
  const can = info.state === "running";

  const go = async (path: string): Promise<boolean> => {
    try {
      const found = await sandbox.files.list(path);
      found.sort((a, b) => Number(b.isDir) - Number(a.isDir) || a.name.localeCompare(b.name));
      setEntries(found);
      setPlace(path);
      setTyped(path);
      setError(undefined);
      show(undefined);
      return true;
    } catch (thrown) {
      setError(textOf(thrown));
      return false;
    }
  };
  useEffect(() => {
    if (!can) return;
    void (async () => {
      for (const path of FIRST) if (await go(path)) return;
    })();
  }, [can]);
  const send = async (files: Iterable<File>): Promise<void> => {
    try {
      for (const file of files) {
        setSending(`Sending ${file.name}, ${bytes(file.size)}…`);
        await sandbox.files.write(join(place, file.name), file as never);
        notes.say(`${file.name} is in ${place}.`);
      }
    } catch (thrown) {
      notes.fail(thrown);
    }
    setSending("");
    await go(place);
  };
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    void send(event.dataTransfer?.files ?? []);
  };
  if (!can)
    return html`<${Section} title="Files"><p class="empty">It is ${info.state}: resume it to see its files.</p><//>`;
  return html`
    <${Section} title="Files" actions=${html`
      <${Action} label="Upload" disabled=${place === ""} run=${() => chooser.current?.click()} />
      <${Action} label="Refresh" run=${() => go(place || typed)} />`}>
      <form class="bar" onSubmit=${(event: Event) => {
        event.preventDefault();
        void go(typed.trim() || "/");
      }}>
        <${TextField} label="Directory" value=${typed} set=${setTyped} error=${error} spellcheck=${false} wide />
        <button>Go</button>
      </form>
      <input ref=${chooser} type="file" multiple hidden aria-label="Files to upload" onChange=${(event: {
        currentTarget: HTMLInputElement;
      }) => {
        const { files } = event.currentTarget;
        void send([...(files ?? [])]);
        event.currentTarget.value = "";
      }} />
      <div class=${`drop${over ? " over" : ""}`} onDragOver=${(event: DragEvent) => {
        event.preventDefault();
        setOver(true);
      }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
        ${place !== "" && html`<${Crumbs} path=${place} go=${go} />`}
        ${entries !== undefined && html`<${Table} label="Files" columns=${columnsOf(sandbox, place, go, show)} rows=${entries} keyOf=${({ path }: FileInfo) => path} empty="Nothing here. Drop files to put them here." />`}
        <p class="soft" role="status">${sending || "Drop files here to upload them; drag one out to save it."}</p>
      </div>
    <//>
    ${shown !== undefined && html`<${Viewer} key=${shown.path} sandbox=${sandbox} file=${shown} close=${() => show(undefined)} />`}
  `;
}

function Crumbs({ path, go }: { path: string; go: (path: string) => Promise<boolean> }) {
  const parts = path.split("/").filter(Boolean);
  const crumb = (name: string, to: string) =>
    html`<button type="button" class="link" onClick=${() => go(to)}>${name}</button>`;
  return html`<nav class="crumbs" aria-label="Path">${crumb("/", "/")}${parts.map((name, at) => html`${crumb(name, `/${parts.slice(0, at + 1).join("/")}`)}<span aria-hidden="true">/</span>`)}</nav>`;
}

function columnsOf(
  sandbox: Sandbox,
  place: string,
  go: (path: string) => Promise<boolean>,
  show: (file: FileInfo) => void,
): Column<FileInfo>[] {
  const remove = async ({ path, name, isDir }: FileInfo): Promise<void> => {
    const text = isDir ? "With everything in it." : "It cannot be brought back.";
    if (!(await confirmed({ title: `Remove ${name}?`, text, word: name, verb: "Remove" }))) return;
    await sandbox.files.remove(path, { recursive: isDir });
    await go(place);
  };
  return [
    {
      name: "Name",
      by: ({ name }) => name,
      cell: (file) =>
        file.isDir
          ? html`<button type="button" class="link" onClick=${() => go(file.path)}>${file.name}/</button>`
          : html`<${DragOut} sandbox=${sandbox} file=${file} open=${() => show(file)} />`,
    },
    { name: "Size", number: true, by: ({ size }) => size, cell: ({ isDir, size }) => (isDir ? "" : bytes(size)) },
    {
      name: "Changed",
      from: "tablet",
      by: ({ modTime }) => modTime,
      cell: ({ modTime }) => `${distance(modTime)} ago`,
    },
    {
      name: "Mode",
      from: "desktop",
      cell: ({ mode, kind, target }) => html`<code>${mode}</code>${kind === "symlink" ? ` → ${target ?? ""}` : ""}`,
    },
    {
      name: "",
      cell: (file) => html`
        <div class="actions">
          ${!file.isDir && html`<${Action} label="Download" name=${`Download ${file.name}`} run=${() => saveAs(sandbox, file)} />`}
          <${Action} label="Remove" name=${`Remove ${file.name}`} kind="danger" run=${() => remove(file)} />
        </div>`,
    },
  ];
}

function join(directory: string, name: string): string {
  return `${directory.replace(/\/$/, "")}/${name}`;
}
