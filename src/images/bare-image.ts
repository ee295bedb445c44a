/**
 * The image of the bare guest (guests/bare), for hosts whose KVM cannot run Linux: there is no userland, so its base is a
 * file of zeros in the size that its name asks for: `stacyvm/bare`, `stacyvm/bare:64m`, `stacyvm/bare:1g`.
 */
import { createHash } from "node:crypto";
import { chmod, mkdir, open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { sha256 } from "../host/digest.ts";
import { StacyError } from "../host/error.ts";
import { exists } from "../host/exists.ts";
import type { DataPaths } from "../host/paths.ts";
import { Stamped } from "../host/stamp.ts";
import type { Image } from "./image.ts";

const NAME = /^stacyvm\/bare(?::(\d{1,4})([mg]))?$/;
/** Bytes at the start of the base, which the guest's `block read 1` shows. */
const LABEL = "stacyvm bare base\n";

export function isBareReference(reference: string): boolean {
  return reference === "stacyvm/bare" || reference.startsWith("stacyvm/bare:");
}

export interface BareImage {
  image: Image;
  /** Absolute path of the ELF file. */
  kernel: string;
  /** sha256, hex */
  kernelDigest: string;
}

/** Those that were asked for, by reference: read once, and again when the guest was built anew. */
export class BareImages {
  readonly #paths: DataPaths;
  readonly #known = new Map<string, Stamped<BareImage>>();

  constructor(paths: DataPaths) {
    this.#paths = paths;
  }

  /** @throws StacyError `not-found` for an unknown size, `unavailable` when set-up has not built the guest */
  async get(reference: string): Promise<BareImage> {
    let known = this.#known.get(reference);
    if (known === undefined) {
      known = new Stamped(async () => {
        const made = await bareImage(this.#paths, reference);
        return { value: made, paths: [made.kernel, made.image.base] };
      });
      // The names that there are, and no more.
      if (NAME.test(reference)) this.#known.set(reference, known);
    }
    return known.get();
  }
}

async function bareImage(paths: DataPaths, reference: string): Promise<BareImage> {
  const match = NAME.exec(reference);
  if (match === null) {
    throw new StacyError("not-found", `there is no image ${reference}`, {
      remedy: "use stacyvm/bare, stacyvm/bare:64m or stacyvm/bare:1g",
    });
  }
  const size = match[1] === undefined ? 1 << 20 : Number(match[1]) * (match[2] === "g" ? 2 ** 30 : 2 ** 20);
  const kernel = join(paths.assets, "bare", "guest.elf");
  const elf = await readFile(kernel).catch((cause) => {
    throw new StacyError("unavailable", `the bare guest is missing: ${kernel}`, {
      cause,
      remedy: "run `stacyvm setup bare`",
    });
  });
  const kernelDigest = sha256(elf);
  const digest = createHash("sha256").update(`bare base ${size}`).digest("hex");
  const dir = join(paths.images, digest);
  const base = join(dir, "base.img");
  if (!(await exists(base))) {
    await mkdir(dir, { recursive: true });
    const temporary = `${base}.${process.pid}`;
    const file = await open(temporary, "w");
    await file.write(LABEL);
    await file.truncate(size);
    await file.close();
    await chmod(temporary, 0o444);
    await rename(temporary, base);
  }
  const config = { env: [], entrypoint: [], cmd: [], labels: {}, exposedPorts: [] };
  const image: Image = {
    reference,
    digest: `sha256:${digest}`,
    base,
    filesystem: "ext4",
    sizeBytes: size,
    config,
    createdAt: (await stat(base)).mtimeMs,
  };
  return { image, kernel, kernelDigest };
}
