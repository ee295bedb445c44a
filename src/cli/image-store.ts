/**
 * The images of this host, for the commands about them. Loaded when one of those runs: the configuration's and the
 * schemas' libraries take as long to load as everything else together, and other commands must not wait for that.
 */

import { imageBody } from "../api/schemas/image.ts";
import { loadConfig } from "../config/load.ts";
import { imagesOptions } from "../config/options.ts";
import { dataPaths } from "../host/paths.ts";
import type { ImageUsers } from "../images/care.ts";
import type { Image, ImageLibrary } from "../images/image.ts";
import { createImages } from "../images/store.ts";
import { imageUse } from "../launcher/image-use.ts";
import { SnapshotStore } from "../launcher/snapshot-store.ts";
import { assertTrusted } from "./data-dir.ts";
import { printJson, printLine } from "./output.ts";

export { imageBody, imageDetailsBody } from "../api/schemas/image.ts";

export interface ImageStore {
  library: ImageLibrary;
  users: ImageUsers;
  /** Bytes; 0: none */
  limit: number;
}

export async function openStore(): Promise<ImageStore> {
  const paths = dataPaths();
  await assertTrusted(paths);
  const { config } = await loadConfig();
  const snapshots = new SnapshotStore(paths.snapshots);
  return {
    library: createImages(paths, imagesOptions(config.images)),
    users: { imageUse: () => imageUse(paths, snapshots), removeSnapshot: (key) => snapshots.remove(key) },
    limit: config.images.max_bytes,
  };
}

export function printImages(images: Image[], options: { json?: boolean }): void {
  const shown = images.map(imageBody);
  if (options.json === true) printJson(shown.length === 1 ? shown[0] : shown);
  else for (const { reference, digest } of images) printLine(`${reference} ${digest}`);
}
