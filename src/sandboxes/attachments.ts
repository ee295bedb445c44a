/**
 * Volumes that come and go while a sandbox runs. Its row has the volume before anything is done with it, and until nothing of its machine has
 * it any more, marked as changing in between; so whenever this server dies no other sandbox is given it, and the next one knows what is to be
 * put right: what was being attached is taken away, since nobody was told of it, and what was being detached is, unless programs hold it.
 */
import { asStacyError, StacyError } from "../host/error.ts";
import type { SandboxMachine } from "../providers/provider.ts";
import type { Volumes } from "../volumes/volumes.ts";
import type { Events } from "./events.ts";
import type { Log } from "./observer.ts";
import type { SandboxRecord, VolumeInput, VolumeMount } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";
import type { SandboxTable } from "./table.ts";
import { freeSlot, leaseFiles, resolveVolumes, type SlottedMount, slotsOf, slotted } from "./volume-mounts.ts";

export interface AttachmentsParts {
  table: SandboxTable;
  volumes: Volumes;
  events: Events;
  log: Log;
}

export class Attachments {
  readonly #parts: AttachmentsParts;

  constructor(parts: AttachmentsParts) {
    this.#parts = parts;
  }

  /** @throws StacyError `conflict`, `invalid`, `not-found`, `corrupt` */
  attach(sandbox: Sandbox, input: VolumeInput): Promise<SandboxRecord> {
    const { table, volumes, events } = this.#parts;
    return sandbox.changes.run(async (signal) => {
      const machine = sandbox.machineIn(["running"]);
      const { record } = sandbox;
      if (record.onExpiry?.keeps === "disk") {
        throw new StacyError(
          "conflict",
          `sandbox ${record.id} is kept without its memory at its end, which volumes do not go with`,
          {
            remedy: "start one that keeps its memory, too: clients of E2B leave autoPauseMemory out",
          },
        );
      }
      const mount = placeFor(record, resolveVolumes(volumes, record.owner, [input])[0]);
      volumes.assertAvailable(mount, mount.readOnly);
      // Nothing may come between that and this.
      const half = { ...mount, changing: "attach" as const };
      put(record, half);
      try {
        await table.save(sandbox); // V1
        const [volume] = await leaseFiles(volumes, record.id, [mount]);
        if (volume !== undefined) await machine.attach(volume, { signal }); // V2 to V4
      } catch (error) {
        await this.#takeAway(sandbox, machine, half, true).catch((failure: unknown) => this.#later(sandbox, failure));
        throw error;
      }
      put(record, mount);
      await table.save(sandbox); // V5
      events.emit("volume.attached", record.id, { volume: mount.name, path: mount.path });
      return record;
    });
  }

  /** @throws StacyError `conflict` naming the programs that hold it, `not-found` */
  detach(sandbox: Sandbox, name: string, force: boolean): Promise<SandboxRecord> {
    const { events } = this.#parts;
    return sandbox.changes.run(async () => {
      const { record } = sandbox;
      const mount = slotted(record.volumes).find((each) => each.name === name);
      if (mount === undefined) {
        throw new StacyError("not-found", `sandbox ${record.id} has no volume ${JSON.stringify(name.slice(0, 80))}`);
      }
      await this.#takeAway(sandbox, sandbox.machineIn(["running"]), mount, force || mount.changing === "attach");
      events.emit("volume.detached", record.id, { volume: name });
      return record;
    });
  }

  /** What an earlier server left half done. Never rejects: what cannot be put right stays as it is, and with its sandbox. */
  async settle(sandbox: Sandbox): Promise<void> {
    const half = slotted(sandbox.record.volumes).filter(({ changing }) => changing !== undefined);
    if (half.length === 0) return;
    await sandbox.changes
      .run(async () => {
        for (const mount of half)
          await this.#takeAway(sandbox, sandbox.machineIn(["running"]), mount, mount.changing === "attach");
      })
      .catch((error: unknown) => this.#later(sandbox, error));
  }

  async #takeAway(sandbox: Sandbox, machine: SandboxMachine, mount: SlottedMount, force: boolean): Promise<void> {
    const { table, volumes } = this.#parts;
    const { record } = sandbox;
    put(record, { ...mount, changing: mount.changing ?? "detach" });
    await table.save(sandbox); // V1
    let reusable: boolean;
    try {
      // Not given up half way: it takes moments, and what is half done only another attempt puts right.
      ({ reusable } = await machine.detach(mount, { force })); // V4, V2, V3
    } catch (thrown) {
      const error = asStacyError(thrown);
      if (error.code === "conflict" && !force) {
        // Programs hold it: it is as it was.
        const { changing: _, ...held } = mount;
        put(record, held);
        await table.save(sandbox);
      }
      throw error;
    }
    if (!reusable) record.slots = slotsOf(record).map((each, slot) => (slot === mount.slot ? "spent" : each));
    else record.slots = slotsOf(record);
    const left = slotted(record.volumes).filter(({ id }) => id !== mount.id);
    if (left.length > 0) record.volumes = left;
    else delete record.volumes;
    await table.save(sandbox); // V5
    await volumes.detached(mount, record.id, mount.readOnly);
  }

  #later(sandbox: Sandbox, err: unknown): void {
    this.#parts.log.warn(
      { sandbox: sandbox.id, err },
      "a volume is neither attached nor detached; detaching it tries again",
    );
  }
}

/** @throws StacyError `conflict`, `invalid` */
function placeFor(record: SandboxRecord, wanted: VolumeMount | undefined): SlottedMount {
  if (wanted === undefined) throw new StacyError("internal", "no volume was asked for");
  for (const other of record.volumes ?? []) {
    if (other.id === wanted.id)
      throw new StacyError("conflict", `sandbox ${record.id} has volume ${wanted.name} already, at ${other.path}`);
    if (other.path === wanted.path)
      throw new StacyError("conflict", `sandbox ${record.id} has volume ${other.name} at ${wanted.path}`);
  }
  return { ...wanted, slot: freeSlot(record, wanted.readOnly) };
}

function put(record: SandboxRecord, mount: SlottedMount): void {
  record.slots = slotsOf(record);
  const others = slotted(record.volumes).filter(({ id }) => id !== mount.id);
  record.volumes = [...others, mount];
}
