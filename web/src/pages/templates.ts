/** Templates: what sandboxes of one kind have in common. */
import { useState } from "preact/hooks";
import type { Template, TemplateCreateRequest } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { linesOf, pairsOf } from "../core/lines.ts";
import { notes, textOf } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { useForm } from "../core/use-form.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, Section, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";

const NEW = {
  name: "",
  image: "",
  description: "",
  memory: "",
  vcpus: "",
  ttl: "30m",
  pool: "0",
  setup: "",
  env: "",
  hosts: "",
};
type Form = typeof NEW;

export function TemplatesPage() {
  const live = theLive();
  const { client } = live;
  const templates = useAsked(() => client.templates.list(), []);
  const [edited, edit] = useState<{ form: Form; isNew: boolean } | undefined>();
  const columns: Column<Template>[] = [
    {
      name: "Name",
      by: ({ name }) => name,
      cell: ({ name, description }) => html`${name}<span class="under">${description}</span>`,
    },
    { name: "Image", by: ({ image }) => image, from: "tablet", cell: ({ image }) => image },
    { name: "Size", from: "tablet", cell: ({ vcpus, memoryMb }) => `${vcpus} CPU, ${memoryMb} MiB` },
    {
      name: "Kept warm",
      number: true,
      from: "desktop",
      by: ({ poolSize }) => poolSize,
      cell: ({ poolSize }) => String(poolSize),
    },
    {
      name: "Changed",
      from: "desktop",
      by: ({ updatedAt }) => updatedAt,
      cell: ({ updatedAt, version }) => `${distance(updatedAt)} ago, version ${version}`,
    },
    {
      name: "",
      cell: (template) => html`
        <div class="actions">
          <${Action} label="Start" name=${`Start ${template.name}`} run=${async () => {
            const sandbox = await client.templates.spawn(template.name);
            await live.refresh();
            location.hash = sandboxLink(sandbox.id);
          }} />
          <${Action} label="Edit" name=${`Edit ${template.name}`} run=${() => edit({ form: formOf(template), isNew: false })} />
          <${Action} label="Remove" name=${`Remove ${template.name}`} kind="danger" run=${async () => {
            const question = {
              title: `Remove the template ${template.name}?`,
              text: "Sandboxes that were made from it stay.",
              word: template.name,
              verb: "Remove",
            };
            if (!(await confirmed(question))) return;
            await client.templates.remove(template.name);
            notes.say(`Removed ${template.name}.`);
            await templates.again();
          }} />
        </div>`,
    },
  ];
  return html`
    <h1 tabindex="-1">Templates</h1>
    ${edited !== undefined && html`<${Editor} key=${edited.form.name} ...${edited} close=${() => edit(undefined)} saved=${templates.again} />`}
    <${Section} title="All templates" actions=${html`<${Action} label="New template" kind="main" run=${() => edit({ form: NEW, isNew: true })} />`}>
      ${templates.error !== undefined && html`<p role="alert" class="wrong">${templates.error}</p>`}
      ${templates.value !== undefined && html`<${Table} label="Templates" columns=${columns} rows=${templates.value} keyOf=${({ owner, name }: Template) => `${owner}/${name}`} empty="No templates yet." />`}
    <//>
  `;
}

function formOf(template: Template): Form {
  const { name, image, description, memoryMb, vcpus, ttl, poolSize, setup, env, allowedHosts } = template;
  return {
    ...{ name, image, description, ttl },
    ...{ memory: String(memoryMb), vcpus: String(vcpus), pool: String(poolSize) },
    setup: setup.join("\n"),
    env: Object.entries(env)
      .map(([key, value]) => `${key}=${value}`)
      .join("\n"),
    hosts: allowedHosts.join("\n"),
  };
}

function Editor({
  form: given,
  isNew,
  close,
  saved,
}: {
  form: Form;
  isNew: boolean;
  close: () => void;
  saved: () => Promise<void>;
}) {
  const { client } = theLive();
  const { form, of } = useForm(given);
  const [error, setError] = useState<string | undefined>();
  const images = useAsked(() => client.images.list(), []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    try {
      const request = requestOf(form);
      if (isNew) await client.templates.create(request);
      else await client.templates.replace(form.name, request);
      notes.say(`Saved ${form.name}.`);
      await saved();
      close();
    } catch (thrown) {
      setError(textOf(thrown));
    }
  };
  return html`
    <${Section} title=${isNew ? "New template" : `Edit ${form.name}`}>
      <form onSubmit=${submit}>
        <div class="fields">
          <${TextField} label="Name" required readonly=${!isNew} autofocus=${isNew} ...${of("name")} />
          <${TextField} label="Image" required list=${(images.value ?? []).map(({ reference }) => reference)} ...${of("image")} />
          <${TextField} label="Description" ...${of("description")} />
          <${TextField} label="Memory, MiB" type="number" min="64" ...${of("memory")} />
          <${TextField} label="CPUs" type="number" min="1" max="32" ...${of("vcpus")} />
          <${TextField} label="Time limit" ...${of("ttl")} />
          <${TextField} label="Kept warm" type="number" min="0" ...${of("pool")} hint="Machines ready in advance" />
        </div>
        <div class="fields">
          <${TextField} label="Setup commands" rows=${4} ...${of("setup")} hint="One a line, run once and kept in the snapshot" />
          <${TextField} label="Environment" rows=${4} ...${of("env")} placeholder="NAME=value" hint="One variable a line" />
          <${TextField} label="Network: allowed hosts" rows=${4} ...${of("hosts")} placeholder="none" hint="One a line" />
        </div>
        <div class="bar"><button class="main">Save</button><${Action} label="Cancel" run=${close} /><span role="alert" class="wrong">${error ?? ""}</span></div>
      </form>
    <//>
  `;
}

function requestOf(form: Form): TemplateCreateRequest {
  return {
    name: form.name,
    image: form.image,
    description: form.description,
    memoryMb: Number(form.memory),
    vcpus: Number(form.vcpus),
    ttl: form.ttl,
    poolSize: Number(form.pool),
    setup: linesOf(form.setup),
    env: pairsOf(form.env),
    allowedHosts: linesOf(form.hosts),
  };
}
