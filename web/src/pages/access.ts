/** Who may call: this key, all keys, quotas, and what administrators did. */
import { useState } from "preact/hooks";
import type { Key, OwnerQuota } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { distance, moment, ms } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { useForm } from "../core/use-form.ts";
import { Code } from "../parts/code.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, attempt, Facts, Section, SelectField, State, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";

export function AccessPage() {
  const { identity, admin } = theLive();
  return html`
    <h1 tabindex="-1">Access</h1>
    <${Section} title="You">
      <${Facts} of=${[["Key", identity?.name], ["Owner", identity?.owner], ["May", identity?.scopes.join(", ")]]} />
    <//>
    ${admin ? html`<${Keys} /><${Quotas} /><${Audit} />` : html`<${Quotas} /><p class="soft">Keys and the audit log are for administrators.</p>`}
  `;
}

function Keys() {
  const { client, identity } = theLive();
  const keys = useAsked(() => client.keys.list(), []);
  const [made, setMade] = useState<{ name: string; key: string } | undefined>();
  const { form, setForm, of } = useForm({ name: "", owner: "", scope: "use", expires: "" });
  const [error, setError] = useState<string | undefined>();
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const why = await attempt(async () => {
      const { name, owner, scope, expires } = form;
      setMade(
        await client.keys.create({
          name,
          scopes: [scope as "use"],
          ...(owner === "" ? {} : { owner }),
          ...(expires === "" ? {} : { expiresIn: expires }),
        }),
      );
      setForm({ ...form, name: "" });
      await keys.again();
    });
    setError(why);
  };
  const columns: Column<Key>[] = [
    {
      name: "Name",
      by: ({ name }) => name,
      cell: ({ name, hint }) => html`${name}<span class="under mono">${hint}…</span>`,
    },
    { name: "Owner", from: "tablet", by: ({ owner }) => owner, cell: ({ owner }) => owner },
    { name: "May", cell: ({ scopes }) => scopes.join(", ") },
    { name: "State", by: ({ state }) => state, cell: ({ state }) => html`<${State} state=${state} />` },
    {
      name: "Last used",
      from: "desktop",
      by: ({ lastUsedAt = "" }) => lastUsedAt,
      cell: ({ lastUsedAt }) => (lastUsedAt === undefined ? "never" : `${distance(lastUsedAt)} ago`),
    },
    { name: "Ends", from: "desktop", cell: ({ expiresAt }) => (expiresAt === undefined ? "never" : moment(expiresAt)) },
    {
      name: "",
      cell: ({ id, name, state }) => html`
        <div class="actions">
          <${Action} label="Rotate" name=${`Rotate ${name}`} disabled=${state !== "active"} title="A new secret; the one before works on for ten minutes" run=${async () => setMade(await client.keys.rotate(id, { grace: "10m" }))} />
          <${Action} label="Revoke" name=${`Revoke ${name}`} kind="danger" disabled=${state !== "active"} run=${async () => {
            const own = name === identity?.name ? " It is the one that this page uses." : "";
            if (
              !(await confirmed({
                title: `Revoke the key ${name}?`,
                text: `Whoever uses it is locked out at once, for good.${own}`,
                word: name,
                verb: "Revoke",
              }))
            )
              return;
            await client.keys.revoke(id);
            notes.say(`Revoked ${name}.`);
            await keys.again();
          }} />
        </div>`,
    },
  ];
  return html`
    <${Section} title="Keys">
      <form class="bar" onSubmit=${submit}>
        <${TextField} label="Name" required ...${of("name")} error=${error} />
        <${TextField} label="Owner" placeholder=${identity?.owner} ...${of("owner")} />
        <${SelectField} label="May" ...${of("scope")} options=${[["read", "read"], ["use", "use"], ["admin", "administer"]]} />
        <${TextField} label="Ends after" placeholder="never" ...${of("expires")} />
        <button class="main">Make a key</button>
      </form>
      ${made !== undefined && html`<div role="status"><p>The secret of <strong>${made.name}</strong>. It is shown once: copy it now.</p><${Code} label="the secret" text=${made.key} /></div>`}
      ${keys.error !== undefined && html`<p role="alert" class="wrong">${keys.error}</p>`}
      ${keys.value !== undefined && html`<${Table} label="Keys" columns=${columns} rows=${keys.value} keyOf=${({ id }: Key) => id} empty="None was made here. Those of the configuration file are not listed." />`}
    <//>
  `;
}

function Quotas() {
  const { client, admin } = theLive();
  const quotas = useAsked(() => client.quotas.list(), []);
  const { form, setForm, of } = useForm({ user: "", max: "", ttl: "", exec: "" });
  const [error, setError] = useState<string | undefined>();
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const { user, max, ttl, exec } = form;
    const why = await attempt(async () => {
      await client.quotas.put(user, {
        ...(max === "" ? {} : { maxSandboxes: Number(max) }),
        ...(ttl === "" ? {} : { maxTtl: ttl }),
        ...(exec === "" ? {} : { maxExecTimeout: exec }),
      });
      notes.say(`Saved the quota of ${user}.`);
      await quotas.again();
    });
    setError(why);
  };
  const columns: Column<OwnerQuota>[] = [
    {
      name: "User",
      by: ({ ownerId }) => ownerId,
      cell: ({ ownerId }) => (ownerId === "*" ? "* (all together)" : ownerId),
    },
    {
      name: "Sandboxes",
      number: true,
      by: ({ maxSandboxes }) => maxSandboxes,
      cell: ({ maxSandboxes }) => (maxSandboxes === 0 ? "any" : String(maxSandboxes)),
    },
    { name: "Time limit", from: "tablet", cell: ({ maxTtl }) => limit(maxTtl) },
    { name: "Command limit", from: "tablet", cell: ({ maxExecTimeout }) => limit(maxExecTimeout) },
    {
      name: "",
      cell: ({ ownerId }) =>
        admin &&
        html`
        <div class="actions">
          <${Action} label="Edit" name=${`Edit the quota of ${ownerId}`} run=${() => {
            const found = quotas.value?.find((each) => each.ownerId === ownerId);
            if (found !== undefined)
              setForm({
                user: ownerId,
                max: String(found.maxSandboxes),
                ttl: found.maxTtl,
                exec: found.maxExecTimeout,
              });
          }} />
          <${Action} label="Remove" name=${`Remove the quota of ${ownerId}`} kind="danger" run=${async () => {
            if (
              !(await confirmed({
                title: `Remove the quota of ${ownerId}?`,
                text: "The server's own limits hold then.",
                word: ownerId,
                verb: "Remove",
              }))
            )
              return;
            await client.quotas.remove(ownerId);
            await quotas.again();
          }} />
        </div>`,
    },
  ];
  return html`
    <${Section} title="Quotas">
      ${
        admin &&
        html`
        <form class="bar" onSubmit=${submit}>
          <${TextField} label="User" required ...${of("user")} error=${error} hint="* for all together" />
          <${TextField} label="Most sandboxes" type="number" min="0" ...${of("max")} placeholder="any" />
          <${TextField} label="Longest time limit" ...${of("ttl")} placeholder="any" />
          <${TextField} label="Longest command" ...${of("exec")} placeholder="any" />
          <button class="main">Save</button>
        </form>`
      }
      ${quotas.error !== undefined && html`<p role="alert" class="wrong">${quotas.error}</p>`}
      ${quotas.value !== undefined && html`<${Table} label="Quotas" columns=${columns} rows=${quotas.value} keyOf=${({ ownerId }: OwnerQuota) => ownerId} empty="No quotas: only the server's limits hold." />`}
    <//>
  `;
}

function limit(text: string): string {
  return text === "" || text === "0s" ? "any" : text;
}

interface Entry {
  id: number;
  at: string;
  actor: string;
  method: string;
  path: string;
  status: number;
  about?: string[] | undefined;
  address?: string | undefined;
  durationMs?: number | undefined;
}

function Audit() {
  const { client } = theLive();
  const audit = useAsked(() => client.transport.call("GET /audit", { query: { limit: 100 } }) as Promise<Entry[]>, []);
  const columns: Column<Entry>[] = [
    { name: "When", by: ({ at }) => at, cell: ({ at }) => moment(at) },
    {
      name: "Who",
      by: ({ actor }) => actor,
      cell: ({ actor, address }) => html`${actor}<span class="under">${address}</span>`,
    },
    { name: "What", by: ({ path }) => path, cell: ({ method, path }) => html`<code>${method} ${path}</code>` },
    { name: "About", from: "desktop", cell: ({ about = [] }) => about.join(", ") },
    {
      name: "Answer",
      number: true,
      from: "tablet",
      by: ({ status }) => status,
      cell: ({ status, durationMs }) => `${status}${durationMs === undefined ? "" : `, ${ms(durationMs)}`}`,
    },
  ];
  return html`
    <${Section} title="Audit log" actions=${html`<${Action} label="Refresh" run=${audit.again} />`}>
      <p class="soft">What administrators did to the server, and with other owners' things.</p>
      ${audit.error !== undefined && html`<p role="alert" class="wrong">${audit.error}</p>`}
      ${audit.value !== undefined && html`<${Table} label="Audit log" columns=${columns} rows=${audit.value} keyOf=${({ id }: Entry) => String(id)} empty="Nothing yet." />`}
    <//>
  `;
}
