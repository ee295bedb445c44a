/** The directories that an image's configuration names: container engines make them when no layer has. */
import { posix } from "node:path";
import { StacyError } from "../host/error.ts";
import type { ImageConfig } from "./image.ts";
import type { FileTree } from "./tree.ts";

/**
 * The working directory and the volumes. @returns without `.` and `..`, bytes as `latin1` as a tree has them
 * @throws StacyError `invalid` for a relative one, which engines refuse as well
 */
export function configPlaces(config: ImageConfig): string[] {
  const place = (path: string, what: string, remedy: string): string => {
    if (!path.startsWith("/") || path.includes("\0")) {
      throw new StacyError("invalid", `the image's ${what} ${JSON.stringify(path)} is not absolute`, { remedy });
    }
    return Buffer.from(posix.normalize(path), "utf8").toString("latin1");
  };
  return [
    ...(config.cwd === undefined
      ? []
      : [place(config.cwd, "working directory", "correct its WORKDIR, or import it with `--workdir /PATH`")]),
    ...(config.volumes ?? []).map((path) => place(path, "volume", "correct its VOLUME")),
  ];
}

/** Makes what is missing, of root and with mode 0755; what is there stays as it is. */
export function makePlaces(tree: FileTree, config: ImageConfig): void {
  for (const path of configPlaces(config)) tree.makeDirectories(path);
}
