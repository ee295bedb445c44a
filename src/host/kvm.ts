/**
 * What this host's KVM runs. The one place that decides (qemu.md, "KVM or not").
 *
 * `/dev/kvm` alone proves nothing: a paravirtual backend opens it and answers every capability question, and an ordinary
 * Linux guest dies early in boot. What counts is who stands behind it, in this order:
 *
 *   kvm_pvm is loaded                   interpreted: ring 3 of a guest runs natively, its ring 0 does not; needs a kernel made for it
 *   kvm_intel or kvm_amd is loaded      native: hardware virtualisation
 *   a machine made for asking           what it showed (kvm-probe.ts): where /sys tells nothing, as in some containers, or the module is built in
 *   the CPU shows vmx or svm            native: where that machine cannot be made for want of Python
 *
 * `STACYVM_ACCEL=kvm|interpreted|tcg` overrides.
 */
import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { StacyError } from "./error.ts";
import { exists } from "./exists.ts";
import { type KvmProbe, probeKvm } from "./kvm-probe.ts";
import { once } from "./once.ts";

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
const BETTER = "use a host with hardware virtualisation; until then QEMU runs Linux guests in software emulation";
const MADE_FOR_IT = `${BETTER}, and Firecracker those whose kernel is made for it (\`stacyvm setup interpreted-kernel\`)`;
const AS_IT_IS = "unset STACYVM_ACCEL to use what is there";

export const kvmState: () => Promise<KvmState> = once(() => look(process.env.STACYVM_ACCEL));

async function look(override: string | undefined): Promise<KvmState> {
  const device = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (override !== undefined && override !== "") return overridden(override, device);
  if (!device) return unopened();
  // Only one of them has /dev/kvm. One that is built in shows its name also where the CPU has nothing for it to drive.
  for (const module of ["kvm_pvm", "kvm_intel", "kvm_amd"]) {
    if (await exists(`/sys/module/${module}`)) return judgeKvm({ module });
  }
  const probe = await probeKvm();
  if (probe !== undefined) return judgeKvm({ probe });
  const flags = /^flags\s*:(.*)$/m.exec(await readFile("/proc/cpuinfo", "latin1"))?.[1] ?? "";
  const flag = /\b(vmx|svm)\b/.exec(flags)?.[1];
  return judgeKvm(flag === undefined ? {} : { flag });
}

/** What is known of a `/dev/kvm` that can be opened; the first that is there decides. */
export interface Evidence {
  /** The loaded module of `/dev/kvm`. */
  module?: string;
  probe?: KvmProbe;
  /** The CPU's flag of hardware virtualisation. */
  flag?: string;
}

export function judgeKvm({ module, probe, flag }: Evidence): KvmState {
  const native = (reason: string): KvmState => ({ device: true, mode: "native", reason });
  if (module === "kvm_pvm") return interpreted("the module kvm_pvm is loaded");
  if (module !== undefined) return native(`the module ${module} is loaded`);
  if (probe?.backend !== undefined) return interpreted(`a vCPU shows the register of ${probe.backend}`);
  if (probe?.ring0 === "native") return native("a probe ran what ordinary kernels use");
  if (probe?.ring0 === "interpreted") return interpreted("a probe ran, but not what ordinary kernels use");
  if (probe === undefined && flag !== undefined) return native(`the CPU has ${flag}`);
  const why =
    probe === undefined
      ? "nothing shows what stands behind it: neither kvm_intel nor kvm_amd is loaded, the CPU shows neither vmx nor svm, and there is no python3 to ask it"
      : "a probe did not run on it at all";
  return { device: true, mode: "none", reason: `/dev/kvm is there, but ${why}`, remedy: BETTER };
}

function interpreted(why: string): KvmState {
  return {
    device: true,
    mode: "interpreted",
    reason: `/dev/kvm runs the kernel of a guest by interpreting it (${why}): ordinary Linux kernels do not run on it`,
    remedy: MADE_FOR_IT,
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
  if (mode === "none") return { device, mode, reason, remedy: AS_IT_IS };
  if (device) return { device, mode, reason, ...(mode === "native" ? {} : { remedy: MADE_FOR_IT }) };
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
