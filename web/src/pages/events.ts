import { useState } from "preact/hooks";
import { html } from "../core/html.ts";
import { Section, SelectField } from "../parts/controls.ts";
import { EventList } from "../parts/event-list.ts";

const KINDS: Record<string, { shown: string; types?: string[] }> = {
  all: { shown: "everything" },
  sandboxes: { shown: "sandboxes", types: ["sandbox.*", "spawn.*", "resource.limit"] },
  failures: {
    shown: "failures",
    types: [
      "sandbox.error",
      "operation.failed",
      "exec.failed",
      "exec.timeout",
      "restore.failed",
      "provider.failed",
      "snapshot.rejected",
      "spawn.queue_timeout",
      "resource.limit",
      "network.refused",
      "directory.failed",
      "volume.failed",
    ],
  },
  commands: { shown: "commands and files", types: ["exec.*", "file.*"] },
  saved: { shown: "snapshots and pool", types: ["snapshot.*", "checkpoint.*", "pool.*", "restore.failed"] },
  server: { shown: "the server", types: ["reconcile.*", "provider.*", "template.*", "quota.*"] },
};

export function EventsPage() {
  const [kind, setKind] = useState("all");
  return html`
    <h1 tabindex="-1">Events</h1>
    <${Section} title="What happened" actions=${html`<${SelectField} label="Show" value=${kind} set=${setKind} options=${Object.entries(KINDS).map(([each, { shown }]) => [each, shown])} />`}>
      <${EventList} types=${KINDS[kind]?.types} />
    <//>
  `;
}
