/** A new sandbox: everything that a spawn can be asked for, and the same as a command or a program. */
import { useEffect, useState } from "preact/hooks";
import type { SpawnRequest } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { copyAs, LANGUAGES, type Language } from "../core/copy-as.ts";
import { html } from "../core/html.ts";
import { linesOf, pairsOf } from "../core/lines.ts";
import { notes, textOf } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { Code } from "../parts/code.ts";
import { SelectField, TextField } from "../parts/controls.ts";

/** The most useful one; making it takes minutes, so it is the default only where it is already. */
const CODE = "stacyvm/code";
const BUILT_IN = ["stacyvm/python", CODE, "stacyvm/busybox"];

const EMPTY = {
  from: "image",
  image: BUILT_IN[0] ?? "",
  template: "",
  checkpoint: "",
  name: "",
  memory: "",
  vcpus: "",
  disk: "",
  ttl: "30m",
  idleTimeout: "",
  idleAction: "destroy",
  env: "",
  labels: "",
  hosts: "",
  setup: "",
};
type Form = typeof EMPTY;

/** Where an error of the server belongs: what it calls the field. */
const FIELDS: Record<string, keyof Form> = {
  name: "name",
  image: "image",
  template: "template",
  checkpoint: "checkpoint",
  memory_mb: "memory",
  vcpus: "vcpus",
  disk_mb: "disk",
  ttl: "ttl",
  idle_timeout: "idleTimeout",
  env: "env",
  metadata: "labels",
  allowed_hosts: "hosts",
  setup: "setup",
};

class FieldError extends Error {
  readonly field: keyof Form;
  constructor(field: keyof Form, message: string) {
    super(message);
    this.field = field;
  }
}

/** @param fill of the form, from a link */
export function SpawnPage({ fill }: { fill: Record<string, string> }) {
  const live = theLive();
  const { client } = live;
  const [form, setForm] = useState<Form>({ ...EMPTY, ...fill });
  const [errors, setErrors] = useState<Partial<Record<keyof Form | "all", string>>>({});
  const [busy, setBusy] = useState(false);
  const [language, setLanguage] = useState<Language>("CLI");
  const images = useAsked(() => client.images.list(), []);
  const templates = useAsked(() => client.templates.list(), []);
  const checkpoints = useAsked(() => client.checkpoints.list(), []);
  const hasCode = images.value?.some(({ reference }) => reference === CODE) === true;
  useEffect(() => {
    if (!hasCode || fill.image !== undefined) return;
    setForm((last) => (last.image === EMPTY.image ? { ...last, image: CODE } : last));
  }, [hasCode, fill.image]);
  const names = [...new Set([...BUILT_IN, ...(images.value ?? []).map(({ reference }) => reference)])];

  const of = (field: keyof Form) => ({
    value: form[field],
    error: errors[field],
    set: (value: string) => {
      setForm((last) => ({ ...last, [field]: value }));
      setErrors(({ [field]: _, ...rest }) => rest);
    },
  });
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setErrors({});
    setBusy(true);
    try {
      const sandbox = await client.create(requestOf(form));
      await live.refresh();
      notes.say(`Started ${form.name || sandbox.id}.`);
      location.hash = sandboxLink(sandbox.id);
    } catch (error) {
      const field = fieldOf(error);
      setErrors({ [field ?? "all"]: textOf(error) });
      setBusy(false);
      // Where the error is, there the keyboard is.
      setTimeout(() => document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
    }
  };

  let text: string;
  try {
    text = copyAs(language, requestOf(form), location.origin);
  } catch (error) {
    text = `# ${textOf(error)}`;
  }
  return html`
    <h1 tabindex="-1">New sandbox</h1>
    <form class="spawn" onSubmit=${submit} aria-label="New sandbox">
      <section aria-label="What it is">
        <div class="fields">
          <${SelectField} label="Start from" ...${of("from")} options=${[["image", "an image"], ["template", "a template"], ["checkpoint", "a checkpoint"]]} />
          ${form.from === "image" && html`<${TextField} label="Image" required list=${names} ...${of("image")} hint=${imageHint(form.image, hasCode)} />`}
          ${form.from === "template" && html`<${TextField} label="Template" required list=${(templates.value ?? []).map(({ name }) => name)} ...${of("template")} />`}
          ${form.from === "checkpoint" && html`<${TextField} label="Checkpoint" required list=${(checkpoints.value ?? []).map(({ id }) => id)} ...${of("checkpoint")} />`}
          <${TextField} label="Name" ...${of("name")} placeholder="optional" maxlength="63" hint="web-1: lower-case letters, digits, - . _" />
        </div>
        <div class="fields">
          ${
            form.from !== "checkpoint" &&
            html`
            <${TextField} label="Memory, MiB" type="number" min="64" step="64" ...${of("memory")} placeholder="default" />
            <${TextField} label="CPUs" type="number" min="1" max="32" ...${of("vcpus")} placeholder="default" />
            <${TextField} label="Disk, MiB" type="number" min="16" ...${of("disk")} placeholder="default" />`
          }
          <${TextField} label="Time limit" ...${of("ttl")} placeholder="default" hint="30m, 2h, 1h30m" />
          <${TextField} label="Idle limit" ...${of("idleTimeout")} placeholder="none" hint="Unused for so long" />
          <${SelectField} label="When idle" ...${of("idleAction")} options=${[["destroy", "remove it"], ["pause", "pause it"], ["suspend", "suspend it to disk"]]} />
        </div>
      </section>
      <section aria-label="What it gets">
        <div class="fields">
          <${TextField} label="Environment" rows=${4} ...${of("env")} placeholder="NAME=value" hint="One variable a line" spellcheck=${false} />
          <${TextField} label="Labels" rows=${4} ...${of("labels")} placeholder="team=search" hint="One a line" spellcheck=${false} />
          <${TextField} label="Network: allowed hosts" rows=${4} ...${of("hosts")} placeholder="none" hint="One a line: pypi.org, *.example.com, *" spellcheck=${false} />
          ${form.from === "image" && html`<${TextField} label="Setup commands" rows=${4} ...${of("setup")} placeholder="none" hint="One a line, run once and kept in the snapshot" spellcheck=${false} />`}
        </div>
      </section>
      <div class="bar">
        <button class="main" disabled=${busy} aria-busy=${busy}>${busy ? "Starting…" : "Start"}</button>
        <a class="button" href="#/">Cancel</a>
        <span role="alert" class="wrong">${errors.all ?? ""}</span>
        ${busy && html`<span class="soft" role="status">The first start of a kind boots; later ones take milliseconds.</span>`}
      </div>
      <section aria-label="The same as a program">
        <div class="bar">
          <h2>Copy as</h2>
          <div class="bar" role="group" aria-label="Language">
            ${LANGUAGES.map((each) => html`<button type="button" class="tab" aria-pressed=${each === language} onClick=${() => setLanguage(each)}>${each}</button>`)}
          </div>
        </div>
        <${Code} label=${`the ${language} form`} text=${text} />
      </section>
    </form>
  `;
}

function imageHint(image: string, hasCode: boolean): string {
  if (image === CODE && !hasCode)
    return "Python, Node, git and compilers. It is made at the first start, which takes minutes.";
  return "One on this host, or any of a registry: it is pulled.";
}

/** @throws FieldError for what the server could not say better */
export function requestOf(form: Form): SpawnRequest {
  const env = pairs(form, "env");
  const labels = pairs(form, "labels");
  const hosts = form.hosts.split(/[\s,]+/).filter(Boolean);
  const setup = form.from === "image" ? linesOf(form.setup) : [];
  const sized = form.from !== "checkpoint";
  const number = (text: string): number | undefined => (text === "" || !sized ? undefined : Number(text));
  const all = {
    name: form.name.trim() || undefined,
    image: form.from === "image" ? form.image.trim() : undefined,
    template: form.from === "template" ? form.template.trim() : undefined,
    checkpoint: form.from === "checkpoint" ? form.checkpoint.trim() : undefined,
    memoryMb: number(form.memory),
    vcpus: number(form.vcpus),
    diskMb: number(form.disk),
    ttl: form.ttl || undefined,
    idleTimeout: form.idleTimeout || undefined,
    idleAction: form.idleTimeout === "" ? undefined : form.idleAction,
    env: some(env),
    metadata: some(labels),
    allowedHosts: hosts.length === 0 ? undefined : hosts,
    setup: setup.length === 0 ? undefined : setup,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as SpawnRequest;
}

function some(map: Record<string, string>): Record<string, string> | undefined {
  return Object.keys(map).length === 0 ? undefined : map;
}

function pairs(form: Form, field: "env" | "labels"): Record<string, string> {
  try {
    return pairsOf(form[field]);
  } catch (error) {
    throw new FieldError(field, textOf(error));
  }
}

/** The server begins with the field's name where it knows it. */
function fieldOf(error: unknown): keyof Form | undefined {
  if (error instanceof FieldError) return error.field;
  const { message = "" } = error as { message?: string };
  const word = /^([a-z_]+)[.:\s]/.exec(message)?.[1] ?? "";
  const field = FIELDS[word];
  if (field !== undefined) return field;
  if (/\bimage\b/.test(message)) return "image";
  return /\bhost/.test(message) ? "hosts" : undefined;
}
