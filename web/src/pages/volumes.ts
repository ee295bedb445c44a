/** Volumes: who has them, what they occupy, and what their owners may have. */
import type { Volume, VolumeUsage } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { theLive } from "../core/context.ts";
import { bytes, distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, Section } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";

const MIB = 2 ** 20;

export function Volumes() {
  const { client } = theLive();
  const volumes = useAsked(() => client.volumes.list(), []);
  const usage = useAsked(() => client.volumes.usage(), []);
  const again = async (): Promise<void> => {
    await Promise.all([volumes.again(), usage.again()]);
  };
  const columns: Column<Volume>[] = [
    {
      name: "Volume",
      by: ({ name }) => name,
      cell: ({ name, owner, copiedFrom }) =>
        html`${name}<span class="under">${copiedFrom === undefined ? owner : `${owner}, from ${copiedFrom}`}</span>`,
    },
    { name: "Size", number: true, by: (each) => each.sizeMb, cell: (each) => bytes(each.sizeMb * MIB) },
    {
      name: "Occupies",
      number: true,
      from: "tablet",
      by: ({ usedBytes = 0 }) => usedBytes,
      cell: ({ usedBytes }) => (usedBytes === undefined ? "its file is missing" : bytes(usedBytes)),
    },
    { name: "With", cell: ({ sandboxes }) => sandboxes.map(userLink) },
    {
      name: "Made",
      from: "desktop",
      by: ({ createdAt }) => createdAt,
      cell: ({ createdAt }) => `${distance(createdAt)} ago`,
    },
    {
      name: "",
      cell: ({ name, sandboxes }) => html`
        <div class="actions">
          <${Action} label="Remove" name=${`Remove the volume ${name}`} kind="danger" disabled=${sandboxes.length > 0} title=${sandboxes.length > 0 ? "A sandbox has it" : undefined} run=${async () => {
            const asked = {
              title: `Remove the volume ${name}?`,
              text: "All that is in it is gone then.",
              word: name,
              verb: "Remove",
            };
            if (!(await confirmed(asked))) return;
            await client.volumes.remove(name);
            notes.say(`Removed ${name}.`);
            await again();
          }} />
        </div>`,
    },
  ];
  return html`
    <${Section} title="Volumes" actions=${html`<${Action} label="Refresh" run=${again} />`}>
      <p class="soft">Disks that stay when sandboxes go.</p>
      ${usage.value?.map((each) => html`<p class="soft" key=${each.owner}>${usageText(each)}</p>`)}
      ${volumes.error !== undefined && html`<p role="alert" class="wrong">${volumes.error}</p>`}
      ${volumes.value !== undefined && html`<${Table} label="Volumes" columns=${columns} rows=${volumes.value} keyOf=${({ owner, name }: Volume) => `${owner} ${name}`} empty="None yet. stacyvm volume create NAME makes one." />`}
    <//>
  `;
}

function userLink({ id, readOnly }: Volume["sandboxes"][number]) {
  return html`<a class="mono" key=${id} href=${sandboxLink(id)}>${id}</a>${readOnly && " (reads)"} `;
}

function usageText({ owner, volumes, sizeMb, usedBytes, maxVolumes, maxSizeMb }: VolumeUsage): string {
  const many = maxVolumes === 0 ? String(volumes) : `${volumes} of ${maxVolumes}`;
  const size = maxSizeMb === 0 ? bytes(sizeMb * MIB) : `${bytes(sizeMb * MIB)} of ${bytes(maxSizeMb * MIB)}`;
  return `${owner}: ${many} volumes, ${size}, which occupy ${bytes(usedBytes)}`;
}
