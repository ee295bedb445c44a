/** A volume comes, and goes, while the machine runs: V1 to V5 of docs/crash-protocol.md. Who has it, its owner's row says, before and after. */
import { asStacyError, StacyError } from "../../host/error.ts";
import { fillSlot } from "../../launcher/machine-dir.ts";
import type { MachineLife } from "../machine-life.ts";
import type { SpecVolume } from "../provider.ts";
import { volumeError } from "../volume-error.ts";

export async function attach(life: MachineLife, { file, ...volume }: SpecVolume): Promise<void> {
  const { abilities } = life.context.launcher.vmm;
  const machine = life.running();
  await fillSlot(life.dir, volume.slot, file); // V2
  await machine.takeVolume(volume.slot); // V3
  // The bare guest has drives, and no filesystems.
  if (life.target.guest !== "linux") return;
  await life.agent.mount({ ...volume, probe: !abilities.tellsVolumeSizes }).catch((error: unknown) => {
    throw volumeError(error);
  }); // V4
}

/**
 * Its guest has closed it when this resolves, and its file is nobody's.
 * @returns whether the slot can be used again: not where programs lost what they had open
 * @throws StacyError `conflict` naming the programs that hold it
 */
export async function detach(
  life: MachineLife,
  { slot, name, path }: Pick<SpecVolume, "slot" | "name" | "path">,
  force: boolean,
): Promise<{ reusable: boolean }> {
  const machine = life.running();
  const reusable = life.target.guest !== "linux" || (await unmount(life, { slot, name, path }, force)); // V4
  await fillSlot(life.dir, slot, undefined); // V2
  await machine.takeVolume(slot); // V3
  return { reusable };
}

async function unmount(
  { agent }: MachineLife,
  volume: { slot: number; name: string; path: string },
  force: boolean,
): Promise<boolean> {
  try {
    await agent.unmount(volume);
    return true;
  } catch (thrown) {
    const error = asStacyError(thrown);
    if (error.code !== "conflict") throw error;
    if (!force) {
      throw new StacyError("conflict", error.message, {
        cause: error,
        remedy: "end them, or take it away from them: `stacyvm volume detach --force`, `?force=true`",
      });
    }
    await agent.unmount(volume, { force: true });
    return false;
  }
}
