/** Empty writable layers, one per size, made once and then copied: the disk of a cold boot. */
import { randomBytes } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncPath } from "../host/durable.ts";
import { exists } from "../host/exists.ts";
import { SparseTemplate } from "../host/sparse.ts";
import { mapSparse } from "../host/sparse-map.ts";
import { createWritableLayer, WRITABLE_FORMAT } from "../images/writable.ts";

export class WritableTemplates {
  readonly #dir: string;
  readonly #open = new Map<number, Promise<SparseTemplate>>();

  constructor(assets: string) {
    this.#dir = join(assets, "writable");
  }

  get(sizeMiB: number): Promise<SparseTemplate> {
    let template = this.#open.get(sizeMiB);
    if (template === undefined) {
      template = this.#make(sizeMiB);
      this.#open.set(sizeMiB, template);
      template.catch(() => this.#open.delete(sizeMiB));
    }
    return template;
  }

  async #make(sizeMiB: number): Promise<SparseTemplate> {
    const path = join(this.#dir, `${sizeMiB}-${WRITABLE_FORMAT}.ext4`);
    const present = await exists(path);
    if (!present) {
      await mkdir(this.#dir, { recursive: true });
      // Another launcher, in this process or another, may be making the same.
      const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
      try {
        await createWritableLayer(temporary, sizeMiB);
        // Every cold boot copies it: after the host's death it must be whole, or not there.
        await syncPath(temporary);
        await rename(temporary, path);
      } finally {
        await rm(temporary, { force: true });
      }
    }
    return SparseTemplate.open(path, await mapSparse(path));
  }
}
