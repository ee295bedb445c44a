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

/** Of processes, where an image says none: the agent's own (agent/src/spawn.rs). */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** For sources that say nothing about processes. */
export function plainConfig(): ImageConfig {
  return {
    env: [`PATH=${DEFAULT_PATH}`],
    entrypoint: [],
    cmd: ["sh"],
    labels: {},
    exposedPorts: [],
  };
}
