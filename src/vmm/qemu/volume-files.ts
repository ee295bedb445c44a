/**
 * A volume that a QEMU gets while it runs. In its cell only its machine's directory exists, to read, and what it makes itself, to write: there
 * the file has another name for as long as QEMU takes to open it.
 */
import { randomBytes } from "node:crypto";
import { chmod, chown, link, readdir, realpath, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isRoot } from "../../host/is-root.ts";
import { type VolumeAccess, volumeFile } from "../vmm.ts";
import { RUN_DIR } from "./arguments.ts";
import type { Qmp } from "./qmp.ts";

/** Of files and of QEMU's nodes for them; with the slot and a number that no other one has. */
const PREFIX = "slot-";

/** @returns its name in the machine's directory, for whoever removes it */
export async function showVolume(dir: string, slot: number, access: VolumeAccess): Promise<string> {
  const file = await realpath(join(dir, volumeFile(slot)));
  if (isRoot()) {
    if (access === "read") await chmod(file, 0o644);
    else {
      // QEMU is another user then, whose is what it makes.
      const { uid, gid } = await stat(join(dir, RUN_DIR));
      await chown(file, uid, gid);
      await chmod(file, 0o600);
    }
  }
  const own = `${PREFIX}${slot}-${randomBytes(4).toString("hex")}.ext4`;
  const name = access === "read" ? own : join(RUN_DIR, own);
  await link(file, join(dir, name));
  return name;
}

/** What a server that died left of `showVolume`: a file with another name is not given to the next QEMU. */
export async function hideVolumes(dir: string): Promise<void> {
  for (const place of [dir, join(dir, RUN_DIR)]) {
    const names = await readdir(place).catch(() => []);
    for (const name of names.filter((each) => each.startsWith(PREFIX))) await rm(join(place, name), { force: true });
  }
}

/** The slot's disk stays, and what is behind it is replaced (QEMU, qapi/block-core.json, `blockdev-reopen`). */
export async function replaceFile(qmp: Qmp, slot: number, access: VolumeAccess, name: string): Promise<void> {
  const readOnly = access === "read" ? { "read-only": true } : {};
  const node = `${PREFIX}${slot}-${randomBytes(4).toString("hex")}`;
  await qmp.execute("blockdev-add", { driver: "file", "node-name": node, filename: name, ...readOnly });
  const discard = access === "write" ? { discard: "unmap" } : {};
  const options = { driver: "raw", "node-name": `volume-${slot}`, file: node, ...readOnly, ...discard };
  await qmp.execute("blockdev-reopen", { options: [options] }).catch(async (error: unknown) => {
    await qmp.execute("blockdev-del", { "node-name": node }).catch(() => {}); // the first error says more
    throw error;
  });
  // The one that it was started with went by itself; those that came later do not.
  const nodes = await qmp.execute<{ "node-name"?: string }[]>("query-named-block-nodes", { flat: true });
  for (const { "node-name": other = "" } of nodes) {
    if (other.startsWith(`${PREFIX}${slot}-`) && other !== node)
      await qmp.execute("blockdev-del", { "node-name": other });
  }
}
