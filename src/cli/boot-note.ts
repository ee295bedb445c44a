/** Which way a sandbox has started and, where it has booted, why: said on a terminal, since a boot is what somebody waits for. */
import type { SandboxInfo } from "../../sdk/src/index.ts";

type Started = Pick<SandboxInfo, "image" | "memoryMb" | "vcpus" | "boot">;

/** `undefined` while nothing is known of its start. */
export function bootNote({ image, memoryMb, vcpus, boot }: Started): string | undefined {
  if (boot === undefined) return undefined;
  const took = `${boot.path} in ${Math.round(boot.totalMs)} ms`;
  if (boot.path !== "cold") return took;
  if (boot.fallback !== undefined) return `${took}: its snapshot could not be restored (${boot.fallback})`;
  return `${took}: the first of ${image} with ${memoryMb} MiB and ${vcpus === 1 ? "1 CPU" : `${vcpus} CPUs`} boots once; the next is restored`;
}
