/** What an image is made of, wherever it comes from: enough to build its base. */
import type { Layer } from "./base.ts";
import type { ImageConfig } from "./image.ts";

export interface ImageContent {
  /** `sha256:<hex>` that names the image; `undefined` when only the finished base can tell. */
  digest: string | undefined;
  config: ImageConfig;
  layers: Layer[];
  /** Blobs in the shared store that it was made of. */
  blobs: string[];
}

/** For sources that say nothing about processes. */
export function plainConfig(): ImageConfig {
  return {
    env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    entrypoint: [],
    cmd: ["sh"],
    labels: {},
    exposedPorts: [],
  };
}
