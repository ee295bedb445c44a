import type { SandboxSpec } from "../src/providers/provider.ts";

/** What test/spawn-until-killed.ts spawns, and whose golden snapshot its test builds. */
export function specOf(image: string): Omit<SandboxSpec, "id"> {
  const size = image === "stacyvm/bare" ? { memoryMiB: 128, diskMiB: 64 } : { memoryMiB: 256, diskMiB: 256 };
  return { ...size, image, vcpus: 1, env: {}, setup: [] };
}
