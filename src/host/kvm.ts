/**
 * What this host's KVM runs. The one place that decides (qemu.md, "KVM or not").
 *
 * `/dev/kvm` alone proves nothing: a paravirtual backend opens it and answers every capability question, and an ordinary
 * Linux guest dies early in boot. What counts is who stands behind it, in this order:
 *
 *   kvm_intel or kvm_amd is loaded      native: hardware virtualisation
 *   kvm_pvm is loaded                   interpreted: ring 3 of a guest runs natively, its ring 0 does not; needs a kernel made for it
 *   the CPU shows vmx or svm            native: the vendor's module is built in
 *   a paravirtual backend's own MSR     interpreted (kvm-msr.ts): where /sys tells nothing, as in some containers
 *
 * `STACYVM_ACCEL=kvm|interpreted|tcg` overrides.
 */
import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { StacyError } from "./error.ts";
import { exists } from "./exists.ts";
import { pvmBackend } from "./kvm-msr.ts";

/** `native`: any Linux guest. `interpreted`: a Linux guest with a kernel made for it. `none`: no guest at all, or none but the bare one. */
export type KvmMode = "native" | "interpreted" | "none";

export interface KvmState {
  /** `/dev/kvm` can be opened by us: enough for Firecracker's own start and for the bare guest. */
  device: boolean;
  mode: KvmMode;
  /** How that was found out, one sentence. */
  reason: string;
  /** What would make it usable, or native; absent when it is. */
  remedy?: string;
}

const MODES: Record<string, KvmMode> = { kvm: "native", interpreted: "interpreted", tcg: "none" };
const BETTER = "use a host with hardware virtualisation; until then Linux guests run in software emulation";

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
  if (override !== undefined && override !== "") return overridden(override, device);
  if (!device) return unopened();
  for (const module of ["kvm_intel", "kvm_amd"]) {
    if (await exists(`/sys/module/${module}`))
      return { device, mode: "native", reason: `the module ${module} is loaded` };
  }
  if (await exists("/sys/module/kvm_pvm")) return interpreted("the module kvm_pvm is loaded");
  const flags = /^flags\s*:(.*)$/m.exec(await readFile("/proc/cpuinfo", "latin1"))?.[1] ?? "";
  const flag = /\b(vmx|svm)\b/.exec(flags)?.[1];
  if (flag !== undefined) return { device, mode: "native", reason: `the CPU has ${flag}` };
  const backend = await pvmBackend();
  if (backend !== undefined) return interpreted(`a vCPU shows the MSR of ${backend}`);
  return {
    device,
    mode: "none",
    reason:
      "/dev/kvm is there, but the CPU shows neither vmx nor svm and neither kvm_intel nor kvm_amd is loaded: its backend does not run Linux guests",
    remedy: BETTER,
  };
}

function interpreted(why: string): KvmState {
  return {
    device: true,
    mode: "interpreted",
    reason: `/dev/kvm runs the kernel of a guest by interpreting it (${why}): ordinary Linux kernels do not run on it`,
    remedy: BETTER,
  };
}

function overridden(override: string, device: boolean): KvmState {
  const mode = MODES[override];
  const reason = `STACYVM_ACCEL=${override}`;
  if (mode === undefined) {
    throw new StacyError("invalid", `STACYVM_ACCEL is "${override}"`, {
      remedy: "use kvm, interpreted or tcg, or unset it",
    });
  }
  if (mode === "none" || device) return { device, mode, reason };
  throw new StacyError("unavailable", `${reason}, but /dev/kvm cannot be opened`, {
    remedy: "add your user to the group `kvm`, or unset STACYVM_ACCEL",
  });
}

async function unopened(): Promise<KvmState> {
  const closed = { device: false, mode: "none" } as const;
  return (await exists("/dev/kvm"))
    ? {
        ...closed,
        reason: "/dev/kvm is there, but this user may not open it",
        remedy: "add your user to the group `kvm` and log in again",
      }
    : {
        ...closed,
        reason: "there is no /dev/kvm",
        remedy:
          "use a host with hardware virtualisation (enable it in the firmware, or nested virtualisation in the cloud)",
      };
}
