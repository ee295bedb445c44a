/** Its checkpoints: saved, gone back to, started from. */
import { useState } from "preact/hooks";
import type { Checkpoint } from "../../../sdk/src/index.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { allows, nameOf } from "../core/states.ts";
import { Checkpoints } from "../pages/saved.ts";
import { confirmed } from "../parts/confirm.ts";
import { Action, TextField } from "../parts/controls.ts";
import type { Column } from "../parts/table.ts";
import type { TabProps } from "./tab.ts";

export function CheckpointsTab({ live, sandbox, info }: TabProps) {
  const [name, setName] = useState("");
  const save = async (): Promise<void> => {
    const made = await sandbox.checkpoint(name || undefined);
    notes.say(`Saved ${made.name ?? made.id}.`);
    setName("");
  };
  const back: Column<Checkpoint> = {
    name: "Go back",
    from: "tablet",
    cell: ({ id, name: called = id }) => html`
      <${Action} label="Go back" name=${`Go back to ${called}`} disabled=${!["running", "paused", "suspended"].includes(info.state)} run=${async () => {
        if (
          !(await confirmed({
            title: `Go back to ${called}?`,
            text: "What happened in the sandbox since then is gone: memory, files and programs.",
            word: called,
            verb: "Go back",
          }))
        )
          return;
        await live.client.transport.call("POST /sandboxes/{id}/restore", {
          params: { id: info.id },
          body: { checkpoint: id },
          timeoutMs: 0,
        });
        await live.refresh();
        notes.say(`${nameOf(info)} is as it was at ${called}.`);
      }} />`,
  };
  const actions = html`
    <${TextField} label="Name" value=${name} set=${setName} placeholder="optional" maxlength="128" />
    <${Action} label="Save a checkpoint" kind="main" disabled=${!allows(info, "checkpoint")} run=${save} />`;
  return html`<${Checkpoints} sandboxId=${info.id} actions=${actions} more=${[back]} />`;
}
