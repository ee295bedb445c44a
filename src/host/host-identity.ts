/** What of this host a saved machine depends on under KVM: the CPU as the guest saw it, and the kernel that saved it. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { release } from "node:os";
import { once } from "./once.ts";

/** `cpu`: vendor, family, model, stepping, microcode and a digest of the flags. `kernel`: its release. */
export const hostIdentity: () => Promise<{ cpu: string; kernel: string }> = once(async () => {
  const text = await readFile("/proc/cpuinfo", "latin1");
  const field = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
  const flags = createHash("sha256").update(field("flags").split(" ").sort().join(" ")).digest("hex").slice(0, 16);
  const cpu = [field("vendor_id"), field("cpu family"), field("model"), field("stepping"), field("microcode"), flags];
  return { cpu: cpu.join("/"), kernel: release() };
});
