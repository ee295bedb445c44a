/**
 * The saved state of a suspended machine, in its own directory. It is the only copy of that machine, so it is on disk with its
 * checksums before the machine may go.
 *
 *     <data>/sandboxes/<id>/suspended/      vmstate.bin  memory.bin  rootfs.ext4  base.img  sealed.json
 *                                           (without its memory: rootfs.ext4  base.img  sealed.json)
 *     <data>/sandboxes/<id>/suspended.new/  being made; nothing counts on it
 *     <data>/sandboxes/<id>/suspended.old/  replaced; a machine that woke from it may still map its memory
 */
import { readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { replaceFile, syncPath } from "../host/durable.ts";
import { errno, StacyError } from "../host/error.ts";
import { isThere } from "../host/exists.ts";
import { copySparse } from "../host/sparse.ts";
import { endLeftovers } from "../vmm/leftovers.ts";
import { FILES, type PausedMachine, SNAPSHOT_FILES } from "../vmm/vmm.ts";
import { makeMachineDir } from "./machine-dir.ts";
import { sparseMap } from "./manifest.ts";
import { damagedPart, PARTS, proofOf, sealParts, stampOf } from "./parts.ts";

export const SEAL = "sealed.json";
const seal = z.object({ proof: z.string(), files: z.record(z.string(), sparseMap) });
/** Of one that is to start anew. */
const DISK: readonly string[] = [FILES.rootfs];

export class SuspendedState {
  readonly dir: string;
  readonly #machineDir: string;

  constructor(machineDir: string) {
    this.#machineDir = machineDir;
    this.dir = join(machineDir, "suspended");
  }

  /** @throws when that cannot be seen */
  exists(): Promise<boolean> {
    return isThere(this.dir);
  }

  /** Saves the machine, which stands still, and its disk; on disk for good, and not yet the state that counts. */
  async save(machine: PausedMachine, base: string): Promise<void> {
    const next = this.#next;
    await rm(next, { recursive: true, force: true });
    await makeMachineDir(next, base);
    const saved = await machine.save(next);
    await copySparse(join(this.#machineDir, FILES.rootfs), join(next, FILES.rootfs));
    await saved.finish();
    await this.#seal(PARTS);
  }

  /** Its disk alone, for a start of the system. The machine stands still, and its guest has nothing left to write. */
  async saveDisk(base: string): Promise<void> {
    const next = this.#next;
    await rm(next, { recursive: true, force: true });
    await makeMachineDir(next, base);
    await copySparse(join(this.#machineDir, FILES.rootfs), join(next, FILES.rootfs));
    await this.#seal(DISK);
  }

  async #seal(parts: readonly string[]): Promise<void> {
    const next = this.#next;
    const files = await sealParts(next, parts);
    await replaceFile(join(next, SEAL), JSON.stringify({ proof: await proofOf(await stampOf(next, parts)), files }));
  }

  /** Names of what it is made of, its seal included. */
  async files(): Promise<string[]> {
    const sealed = await this.#sealed();
    return sealed === undefined ? [...PARTS] : [...Object.keys(sealed.files), SEAL];
  }

  /** Its files were written anew, as they had been, and are on disk. */
  async sealAgain(): Promise<void> {
    const { files } = (await this.#sealed()) ?? {};
    if (files === undefined) return;
    const proof = await proofOf(await stampOf(this.dir, Object.keys(files)));
    await replaceFile(join(this.dir, SEAL), JSON.stringify({ proof, files }));
  }

  /** What was saved takes the place of an earlier state. */
  async commit(): Promise<void> {
    const old = `${this.dir}.old`;
    await rm(old, { recursive: true, force: true });
    await rename(this.dir, old).catch((error: unknown) => {
      if (errno(error) !== "ENOENT") throw error;
    });
    await rename(this.#next, this.dir);
    await syncPath(this.#machineDir);
    // Its own name too: the machine may have been a pool's a moment ago.
    await syncPath(dirname(this.#machineDir));
    await rm(old, { recursive: true, force: true });
  }

  /**
   * Removes a save that an earlier daemon did not finish; a monitor of ours that is at work in it is ended first.
   * @throws as `endLeftovers`
   */
  async removeUnfinished(): Promise<void> {
    if (!(await isThere(this.#next))) return;
    await endLeftovers(this.#next);
    await rm(this.#next, { recursive: true, force: true });
  }

  /** Removes what a failed save left. @param committed it had taken its place already */
  async discard(committed: boolean): Promise<void> {
    await rm(this.#next, { recursive: true, force: true });
    if (committed) await rm(this.dir, { recursive: true, force: true });
  }

  async #sealed(): Promise<z.infer<typeof seal> | undefined> {
    const text = await readFile(join(this.dir, SEAL), "utf8").catch((error: unknown) => {
      // A machine that an earlier version suspended has none.
      if (errno(error) === "ENOENT") return undefined;
      throw error;
    });
    try {
      return text === undefined ? undefined : seal.parse(JSON.parse(text));
    } catch (cause) {
      throw damaged(SEAL, cause);
    }
  }

  /** Looks whether its disk is what was saved; the rest may be damaged. @throws StacyError `corrupt` */
  async verifyDisk(): Promise<"disk"> {
    const sealed = await this.#sealed();
    const part = sealed && (await damagedPart(this.dir, sealed.files, DISK));
    if (part !== undefined) throw damaged(part);
    return "disk";
  }

  /** Looks whether it is what was saved. @returns what that is. @throws StacyError `corrupt` */
  async verify(): Promise<"machine" | "disk"> {
    const sealed = await this.#sealed();
    if (sealed === undefined) return "machine";
    const { proof, files } = sealed;
    const [kind, parts] = SNAPSHOT_FILES.memory in files ? (["machine", PARTS] as const) : (["disk", DISK] as const);
    const stamp = await stampOf(this.dir, parts).catch((cause: unknown) => {
      throw damaged("a part of it", cause);
    });
    if (proof === (await proofOf(stamp))) return kind;
    const part = await damagedPart(this.dir, files, parts);
    if (part !== undefined) throw damaged(part);
    return kind;
  }

  get #next(): string {
    return `${this.dir}.new`;
  }
}

function damaged(what: string, cause?: unknown): StacyError {
  return new StacyError("corrupt", `the suspended machine's saved state is damaged: ${what} is not what was saved`, {
    cause,
    remedy: "go back to a checkpoint of it, or destroy it",
  });
}
