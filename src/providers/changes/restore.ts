/** Another machine takes its place, from one of its checkpoints: B1 to B5 of docs/crash-protocol.md. */
import { rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncPath } from "../../host/durable.ts";
import { errno } from "../../host/error.ts";
import { discard } from "../../launcher/launch.ts";
import { removeMachineDir, writeRecord } from "../../launcher/machine-dir.ts";
import { formerId, type MachineLife, nextId } from "../machine-life.ts";

/** @param key of the checkpoint's snapshot */
export async function restore(life: MachineLife, key: string, signal: AbortSignal): Promise<void> {
  if (life.now.state === "exited") throw life.gone();
  await life.lastOneDied();
  await takePlace(life); // what an earlier restore left undone
  const names = life.names();
  const next = await life.context.launcher.launchSaved(key, "checkpoint", {
    ...{ id: nextId(life.id), names, trackDirty: true, signal },
  }); // B1
  const former = life.now;
  let replaced = false;
  try {
    // From here on the next daemon finds it: it is the sandbox's as soon as the old one is dead.
    await writeRecord(next.dir, { ...life.record, key, process: next.machine.record, state: "running" }); // B2
    // The new machine's next caller opens the channel anew.
    await next.agent.close();
    life.egress.stop();
    await life.agent.disconnect();
    life.counts(signal);
    // Not the end of this sandbox's machine: whoever watches the old one must see the new one in its place.
    life.become({ state: "running", machine: next.machine });
    replaced = true;
    if ("machine" in former) await former.machine.kill(); // B3
  } catch (error) {
    if (replaced) life.settle(former);
    await discard(next.dir, next.machine);
    next.releaseSnapshot();
    life.startEgress();
    throw error;
  }
  const releaseFormer = life.releaseSnapshot;
  life.releaseSnapshot = next.releaseSnapshot;
  life.dir = next.dir;
  life.freeze.ended();
  life.record.key = key;
  life.watch(next.machine);
  releaseFormer();
  try {
    await takePlace(life); // B4
    await life.write("running"); // B5
  } finally {
    life.startEgress(); // it runs, wherever it is
  }
}

/** Moves from beside its place into it, if it is not there. */
async function takePlace(life: MachineLife): Promise<void> {
  const { place } = life;
  if (life.dir === place) return;
  const root = dirname(place);
  const former = join(root, formerId(life.id));
  await removeMachineDir(former);
  await rename(place, former).catch((error: unknown) => {
    if (errno(error) !== "ENOENT") throw error; // moved away by the attempt before
  });
  await rename(life.dir, place);
  life.dir = place;
  life.machine?.relocate(place);
  await syncPath(root);
  await removeMachineDir(former);
}
