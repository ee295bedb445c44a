/** Looking through a sandbox's files: directories, short texts, downloads, uploads. */
import type { FileInfo, Sandbox } from "../../sdk/src/index.ts";
import { action, bytes, el, note, table } from "./dom.ts";

/** A longer file is downloaded, not shown. */
const SHOWN_BYTES = 256 * 1024;

export function filesPanel(sandbox: Sandbox): HTMLElement {
  const place = el("input", { value: "/workspace", size: 30, "aria-label": "Directory" });
  const list = el("div");
  const content = el("pre", { hidden: true, "aria-label": "Content" });
  const file = el("input", { type: "file", hidden: true, "aria-label": "File to upload" });

  const go = async (path: string): Promise<void> => {
    const entries = await sandbox.files.list(path);
    place.value = path;
    content.hidden = true;
    const up = path === "/" ? [] : [["..", "", "", link("..", () => go(parent(path)))]];
    list.replaceChildren(
      entries.length === 0 && up.length === 0
        ? el("p", { class: "empty" }, "Nothing here.")
        : table(
            ["name", "size", "mode", ""],
            [
              ...up.map(([, size, mode, name]) => [name, size, mode, ""]),
              ...entries.map((entry) => [
                link(entry.isDir ? `${entry.name}/` : entry.name, () => (entry.isDir ? go(entry.path) : show(entry))),
                entry.isDir ? "" : bytes(entry.size),
                el("code", {}, entry.mode),
                entry.isDir ? "" : action("save", () => download(entry)),
              ]),
            ],
          ),
    );
  };
  const show = async (entry: FileInfo): Promise<void> => {
    if (entry.size > SHOWN_BYTES) return download(entry);
    content.textContent = await sandbox.files.read(entry.path);
    content.hidden = false;
  };
  const download = async (entry: FileInfo): Promise<void> => {
    const url = URL.createObjectURL(new Blob([(await sandbox.files.readBytes(entry.path)) as Uint8Array<ArrayBuffer>]));
    el("a", { href: url, download: entry.name }).click();
    URL.revokeObjectURL(url);
  };
  file.addEventListener("change", async () => {
    try {
      for (const each of file.files ?? []) {
        await sandbox.files.write(
          `${place.value.replace(/\/$/, "")}/${each.name}`,
          new Uint8Array(await each.arrayBuffer()),
        );
      }
      await go(place.value);
    } catch (error) {
      note(error);
    } finally {
      file.value = "";
    }
  });
  const form = el("form", { class: "bar" }, el("h2", {}, "Files"), place, el("button", {}, "list"));
  form.append(
    action("upload", async () => file.click()),
    file,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(place.value).catch(note);
  });
  return el("section", { "aria-label": "Files" }, form, list, content);
}

function link(name: string, work: () => Promise<unknown>): HTMLAnchorElement {
  const anchor = el("a", { href: "#" }, name);
  anchor.addEventListener("click", (event) => {
    event.preventDefault();
    work().catch(note);
  });
  return anchor;
}

function parent(path: string): string {
  return path.replace(/\/+[^/]*\/*$/, "") || "/";
}
