/** Saved machines: golden snapshots, which starts come from, and checkpoints, which people have made. */
import type { Checkpoint, Snapshot } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { bytes, count, distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { sandboxLink, spawnLink } from "../core/route.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, Section } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";
import { Volumes } from "./volumes.ts";

export function SavedPage() {
  return html`
    <h1 tabindex="-1">Snapshots, checkpoints and volumes</h1>
    <${Checkpoints} />
    <${Snapshots} />
    <${Volumes} />
  `;
}

/** @param sandboxId of one sandbox; absent: all. @param more columns of the caller's page */
export function Checkpoints({
  sandboxId,
  actions,
  more = [],
}: {
  sandboxId?: string;
  actions?: unknown;
  more?: Column<Checkpoint>[];
}) {
  const live = theLive();
  const { client } = live;
  const checkpoints = useAsked(
    async () =>
      (await client.checkpoints.list()).filter((each) => sandboxId === undefined || each.sandboxId === sandboxId),
    [sandboxId, live.events.filter(({ type }) => type.startsWith("checkpoint."))[0]?.id],
  );
  const columns: Column<Checkpoint>[] = [
    {
      name: "Checkpoint",
      by: ({ name, id }) => name ?? id,
      cell: ({ name, id }) => html`${name ?? id}${name !== undefined && html`<span class="under mono">${id}</span>`}`,
    },
    ...(sandboxId === undefined
      ? [
          {
            name: "Sandbox",
            from: "tablet" as const,
            by: (each: Checkpoint) => each.sandboxId,
            cell: (each: Checkpoint) => html`<a class="mono" href=${sandboxLink(each.sandboxId)}>${each.sandboxId}</a>`,
          },
        ]
      : []),
    { name: "Size", number: true, by: (each) => each.bytes, cell: checkpointSize },
    {
      name: "Made",
      from: "tablet",
      by: ({ createdAt }) => createdAt,
      cell: ({ createdAt }) => `${distance(createdAt)} ago`,
    },
    ...more,
    {
      name: "",
      cell: ({ id, name = id }) => html`
        <div class="actions">
          <a class="button" href=${spawnLink({ from: "checkpoint", checkpoint: id })} aria-label=${`Start from ${name}`}>Start</a>
          <${Action} label="Remove" name=${`Remove ${name}`} kind="danger" run=${async () => {
            if (
              !(await confirmed({
                title: `Remove the checkpoint ${name}?`,
                text: "Sandboxes that were started from it stay.",
                word: name,
                verb: "Remove",
              }))
            )
              return;
            await client.checkpoints.remove(id);
            notes.say(`Removed ${name}.`);
            await checkpoints.again();
          }} />
        </div>`,
    },
  ];
  return html`
    <${Section} title="Checkpoints" actions=${actions}>
      ${checkpoints.error !== undefined && html`<p role="alert" class="wrong">${checkpoints.error}</p>`}
      ${checkpoints.value !== undefined && html`<${Table} label="Checkpoints" columns=${columns} rows=${checkpoints.value} keyOf=${({ id }: Checkpoint) => id} empty="No checkpoints yet. A sandbox's page saves one." />`}
    <//>
  `;
}

function Snapshots() {
  const { client, admin } = theLive();
  const snapshots = useAsked(async () => (await client.snapshots.list()).filter(({ kind }) => kind === "golden"), []);
  const columns: Column<Snapshot>[] = [
    {
      name: "Image",
      by: ({ image }) => image,
      cell: ({ image, key }) => html`${image}<span class="under mono">${key.slice(0, 16)}</span>`,
    },
    {
      name: "Machine",
      from: "tablet",
      cell: ({ provider, vcpus, memoryMb }) => `${provider}, ${vcpus} CPU, ${memoryMb} MiB`,
    },
    { name: "Size", number: true, by: (each) => each.bytes, cell: (each) => bytes(each.bytes) },
    { name: "In use", number: true, by: ({ inUse }) => inUse, cell: ({ inUse }) => String(inUse) },
    {
      name: "Last used",
      from: "desktop",
      by: ({ lastUsedAt }) => lastUsedAt,
      cell: ({ lastUsedAt }) => `${distance(lastUsedAt)} ago`,
    },
    {
      name: "",
      cell: ({ key, inUse, image }) =>
        admin &&
        html`
        <div class="actions">
          <${Action} label="Remove" name=${`Remove the snapshot of ${image}, ${key.slice(0, 8)}`} kind="danger" disabled=${inUse > 0} title=${inUse > 0 ? "Machines run from it" : undefined} run=${async () => {
            const word = key.slice(0, 8);
            if (
              !(await confirmed({
                title: `Remove a snapshot of ${image}?`,
                text: "The next start of this kind boots and makes a new one.",
                word,
                verb: "Remove",
              }))
            )
              return;
            await client.snapshots.remove(key);
            notes.say(`Removed the snapshot ${word}.`);
            await snapshots.again();
          }} />
        </div>`,
    },
  ];
  const collect = async (): Promise<void> => {
    const plan = await client.snapshots.gc({ dryRun: true });
    if (plan.removed.length === 0) return notes.say("Every snapshot is in use.");
    const what = count(plan.removed.length, "snapshot");
    const word = String(plan.removed.length);
    if (
      !(await confirmed({
        title: `Remove ${what}?`,
        text: `No machine runs from them. ${bytes(plan.bytes)} become free; the next start of each kind boots.`,
        word,
        verb: `Remove ${what}`,
      }))
    )
      return;
    const { bytes: freed } = await client.snapshots.gc({});
    notes.say(`${bytes(freed)} are free now.`);
    await snapshots.again();
  };
  const total = (snapshots.value ?? []).reduce((sum, each) => sum + each.bytes, 0);
  return html`
    <${Section} title="Golden snapshots" actions=${html`<span class="soft">${bytes(total)}</span>${admin && html`<${Action} label="Remove unused" kind="danger" run=${collect} />`}<${Action} label="Refresh" run=${snapshots.again} />`}>
      <p class="soft">A machine of each kind, saved right after its boot. Starts restore it.</p>
      ${snapshots.error !== undefined && html`<p role="alert" class="wrong">${snapshots.error}</p>`}
      ${snapshots.value !== undefined && html`<${Table} label="Golden snapshots" columns=${columns} rows=${snapshots.value} keyOf=${({ key }: Snapshot) => key} empty="None yet. The first start of an image makes one." />`}
    <//>
  `;
}

function checkpointSize({ bytes: size, damaged }: Checkpoint) {
  return html`${bytes(size)}${damaged !== undefined && html`<span class="under wrong">damaged: ${damaged}</span>`}`;
}
