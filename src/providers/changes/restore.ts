/** Another machine takes its place, from one of its checkpoints: B1 to B5 of docs/crash-protocol.md. */
import { discard } from "../../launcher/launch.ts";
import { writeRecord } from "../../launcher/machine-dir.ts";
import { type MachineLife, nextId } from "../machine-life.ts";

/** @param key of the checkpoint's snapshot */
export async function restore(life: MachineLife, key: string, signal: AbortSignal): Promise<void> {
  if (life.now.state === "exited") throw life.gone();
  await life.lastOneDied();
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
    life.stopTraffic();
    await life.agent.disconnect();
    life.counts(signal);
    // Not the end of this sandbox's machine: whoever watches the old one must see the new one in its place.
    life.become({ state: "running", machine: next.machine });
    replaced = true;
    // B3. There is no way back from the first signal: what resists is dead as soon as the host lets it be.
    if ("machine" in former) await life.kill(former.machine);
    // A suspended one has no process that could end: it is the sandbox's no more when it is out of its place.
    else await life.moveAside();
  } catch (error) {
    if (replaced) life.settle(former);
    await discard(next.dir, next.machine);
    next.releaseSnapshot();
    life.startTraffic();
    throw error;
  }
  const releaseFormer = life.releaseSnapshot;
  life.releaseSnapshot = next.releaseSnapshot;
  life.dir = next.dir;
  life.freeze.ended();
  life.record.key = key;
  life.watch(next.machine);
  // It maps its snapshot's memory to its end.
  if ("machine" in former) void former.machine.exited.then(releaseFormer);
  else releaseFormer();
  try {
    await life.takePlace(); // B4
    await life.recordFile.write("running"); // B5
  } finally {
    life.startTraffic(); // it runs, wherever it is
  }
}
