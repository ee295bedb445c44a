/** It goes to disk, and comes back from there: S1 to S5 and W1 to W5 of docs/crash-protocol.md. */
import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { copySparse } from "../../host/sparse.ts";
import { bootAnew } from "../../launcher/launch.ts";
import { SuspendedState } from "../../launcher/suspended.ts";
import { FILES, type PausedMachine, type RunningMachine, type VmmProcess } from "../../vmm/vmm.ts";
import { agentStep } from "../freeze.ts";
import type { MachineLife } from "../machine-life.ts";
import { writesVolumes } from "../written-volumes.ts";

export async function suspend(
  life: MachineLife,
  signal: AbortSignal,
  keeps: "machine" | "disk" = "machine",
): Promise<void> {
  if (life.state === "suspended") return;
  // What a guest that stands still has not written yet, it cannot write.
  const before = keeps === "disk" ? life.running() : life.alive();
  const suspended = new SuspendedState(life.dir);
  let paused: PausedMachine | undefined;
  let committed = false;
  let recorded = false;
  try {
    if (keeps === "disk") {
      await life.freeze.freeze();
      await agentStep(life.agent.sync(), "writing what the guest has in memory to its disk");
    } else if (before.state === "running") await before.prepareSave();
    life.counts(signal);
    // A wake may be taken back, and what its guest wrote to a volume could not.
    if (keeps === "machine" && before.state === "running" && writesVolumes(life.record)) await life.freeze.still();
    life.stopTraffic();
    await life.agent.disconnect();
    paused = before.state === "paused" ? before : await before.pause({ toSave: keeps === "machine" }); // S1
    life.become({ state: "paused", machine: paused });
    const { base } = life.target.image;
    await (keeps === "disk" ? suspended.saveDisk(base) : suspended.save(paused, base)); // S2
    life.counts(signal);
    // From here on the end of its process is no news: what is saved is whole.
    life.become({ state: "suspended" });
    committed = true;
    await suspended.commit(); // S3
    life.counts(signal);
    recorded = true;
    await life.recordFile.write("suspended"); // S4
  } catch (error) {
    if (paused !== undefined && life.now.state === "suspended") {
      life.settle({ state: "paused", machine: paused });
      life.watch(paused);
    }
    // Nothing is lost: it goes on where it stood.
    if (before.state === "running") await life.goOn(paused, recorded);
    else if (recorded) await life.recordFile.correct("paused");
    // What the record may name is there until it says otherwise.
    await life.recordFile.whenRight(() => suspended.discard(committed)).catch(() => {});
    throw error;
  }
  await life.kill(paused); // S5
  await rm(join(life.dir, FILES.rootfs), { force: true }).catch(() => {}); // the next wake writes it anew
}

/** @param how.anew the saved memory is left out */
export async function wake(life: MachineLife, signal: AbortSignal, how: { anew?: boolean } = {}): Promise<void> {
  await life.lastOneDied();
  const suspended = new SuspendedState(life.dir);
  const { vmm, targets } = life.context.launcher;
  const keeps = how.anew === true ? await suspended.verifyDisk() : await suspended.verify(); // W1
  // A golden snapshot's key holds the release; this one may have been saved before another one was installed.
  if (keeps === "machine") await vmm.checkLoadable?.(life.target.shape.vmmIdentity);
  const disk = join(life.dir, FILES.rootfs);
  await rm(disk, { force: true });
  const from = suspended.dir;
  let loading: VmmProcess | undefined;
  let named: RunningMachine | undefined;
  const saved = startOf(life);
  const stop = (): void => void life.kill(loading);
  signal.addEventListener("abort", stop, { once: true });
  try {
    await copySparse(join(from, FILES.rootfs), disk); // W2
    let machine: RunningMachine;
    if (keeps === "disk") {
      life.target = await targets.anew(life.target);
      const { config, shape } = life.target;
      const { record } = life;
      // Its system has started again, which programs tell by this.
      Object.assign(record, { config, shape, identity: { ...record.identity, bootId: randomUUID() } });
      machine = await bootAnew(vmm, config, { dir: life.dir, signal }, (process) => {
        loading = process;
      }); // W3
    } else {
      const loadable = await vmm.prepareLoad({
        ...{ dir: life.dir, config: life.target.config, memory: "private", snapshot: { dir: from } },
        signal,
      });
      loading = loadable;
      life.counts(signal);
      machine = await loadable.load({ dir: from, trackDirty: true }); // W3
    }
    loading = machine;
    life.counts(signal);
    life.become({ state: "returning", from: "suspended", machine });
    await life.identify(); // W4
    life.counts(signal);
    // What the record names from here on must live: only the sandbox's own end takes it away.
    signal.removeEventListener("abort", stop);
    named = machine;
    await life.recordFile.write("running"); // W5
    life.settle({ state: "running", machine });
    life.watch(machine);
  } catch (error) {
    // What is saved is what counts, and it is as it was: the next wake may load the memory that belongs to it.
    life.settle({ state: "suspended" });
    const begun = startOf(life);
    setStart(life, saved);
    if (named !== undefined && !(await life.recordFile.correct("suspended"))) {
      // The record may name the new process, and cannot be put right now: so that one lives, and is the machine.
      setStart(life, begun);
      life.settle({ state: "running", machine: named });
      life.watch(named);
      await life.recordFile.correct("running");
      life.startTraffic();
      await volumesGoOn(life);
      throw error;
    }
    await life.agent.disconnect();
    await life.kill(loading);
    await rm(disk, { force: true }).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
  life.startTraffic();
  await volumesGoOn(life);
}

/** What a start of the system is of. */
interface Start {
  target: MachineLife["target"];
  record: Pick<MachineLife["record"], "config" | "shape" | "identity">;
}

function startOf({ target, record: { config, shape, identity } }: MachineLife): Start {
  return { target, record: { config, shape, identity } };
}

function setStart(life: MachineLife, { target, record }: Start): void {
  life.target = target;
  Object.assign(life.record, record);
}

/** A guest that does not answer is asked again and again, beside. */
async function volumesGoOn(life: MachineLife): Promise<void> {
  if (writesVolumes(life.record)) await life.freeze.goOn().catch(() => {});
}
