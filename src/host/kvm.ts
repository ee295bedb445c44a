/**
 * Can this host's KVM run Linux guests? The one place that decides (qemu.md, "KVM or not").
 *
 * `/dev/kvm` alone proves nothing: a paravirtual backend opens it and answers every capability question, and an ordinary
 * Linux guest dies early in boot. Hardware virtualisation shows as the CPU flag vmx or svm, or as a loaded vendor module.
 * `STACYVM_ACCEL=kvm|tcg` overrides.
 */
import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { StacyError } from "./error.ts";
import { exists } from "./exists.ts";

export interface KvmState {
  /** `/dev/kvm` can be opened by us: enough for Firecracker's own start and for the bare guest. */
  device: boolean;
  /** Linux guests run on it. */
  linux: boolean;
  /** How that was found out, one sentence. */
  reason: string;
  /** What would make it usable; absent when it is. */
  remedy?: string;
}

let cached: Promise<KvmState> | undefined;
export function kvmState(): Promise<KvmState> {
  cached ??= look(process.env.STACYVM_ACCEL);
  return cached;
}

async function look(override: string | undefined): Promise<KvmState> {
  const device = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (override === "tcg") return { device, linux: false, reason: "STACYVM_ACCEL=tcg" };
  if (override === "kvm") {
    if (device) return { device, linux: true, reason: "STACYVM_ACCEL=kvm" };
    throw new StacyError("unavailable", "STACYVM_ACCEL=kvm, but /dev/kvm cannot be opened", {
      remedy: "add your user to the group `kvm`, or unset STACYVM_ACCEL",
    });
  }
  if (override !== undefined && override !== "") {
    throw new StacyError("invalid", `STACYVM_ACCEL is "${override}"`, { remedy: "use kvm or tcg, or unset it" });
  }
  if (!device) {
    return (await exists("/dev/kvm"))
      ? {
          device,
          linux: false,
          reason: "/dev/kvm is there, but this user may not open it",
          remedy: "add your user to the group `kvm` and log in again",
        }
      : {
          device,
          linux: false,
          reason: "there is no /dev/kvm",
          remedy:
            "use a host with hardware virtualisation (enable it in the firmware, or nested virtualisation in the cloud)",
        };
  }
  const flags = /^flags\s*:(.*)$/m.exec(await readFile("/proc/cpuinfo", "latin1"))?.[1] ?? "";
  const flag = /\b(vmx|svm)\b/.exec(flags)?.[1];
  if (flag !== undefined) return { device, linux: true, reason: `the CPU has ${flag}` };
  for (const module of ["kvm_intel", "kvm_amd"]) {
    if (await exists(`/sys/module/${module}`)) return { device, linux: true, reason: `the module ${module} is loaded` };
  }
  return {
    device,
    linux: false,
    reason:
      "/dev/kvm is there, but the CPU shows neither vmx nor svm and neither kvm_intel nor kvm_amd is loaded: its backend does not run Linux guests",
    remedy: "use a host with hardware virtualisation; until then Linux guests run in software emulation",
  };
}
