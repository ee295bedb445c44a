/** What of this host a saved machine depends on under KVM: the CPU as the guest saw it, and the kernel that saved it. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { release } from "node:os";

let cached: Promise<{ cpu: string; kernel: string }> | undefined;

/** `cpu`: vendor, family, model, stepping, microcode and a digest of the flags. `kernel`: its release. */
export function hostIdentity(): Promise<{ cpu: string; kernel: string }> {
  cached ??= readFile("/proc/cpuinfo", "latin1").then((text) => {
    const field = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
    const flags = createHash("sha256").update(field("flags").split(" ").sort().join(" ")).digest("hex").slice(0, 16);
    const cpu = [field("vendor_id"), field("cpu family"), field("model"), field("stepping"), field("microcode"), flags];
    return { cpu: cpu.join("/"), kernel: release() };
  });
  return cached;
}
