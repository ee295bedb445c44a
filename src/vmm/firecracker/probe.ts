/** Is there a usable Firecracker on this host, and what can it run? */
import { asStacyError } from "../../host/error.ts";
import { type KvmState, kvmState } from "../../host/kvm.ts";
import { runTool } from "../../host/run.ts";
import type { KernelSetting } from "../../images/guest-kernel.ts";
import { findInterpretedKernel } from "../../images/interpreted-kernel.ts";
import type { VmmProbe } from "../vmm.ts";
import { type FirecrackerPaths, type LocateOptions, locateFirecracker } from "./install.ts";
import { type VersionTraits, versionTraits } from "./versions.ts";

const VERSION_LIMIT_MS = 5_000;

export interface Probed {
  probe: VmmProbe;
  /** Present when usable. */
  found?: { paths: FirecrackerPaths; traits: VersionTraits; snapshotFormat: string };
}

/** Never throws. */
export async function probeFirecracker(
  assetsDir: string,
  options: LocateOptions,
  kernel?: KernelSetting,
): Promise<Probed> {
  let path: string | undefined;
  let version: string | undefined;
  try {
    const paths = await locateFirecracker(assetsDir, options);
    path = paths.firecracker;
    const tell = async (flag: string): Promise<string> =>
      (await runTool(paths.firecracker, [flag], { timeoutMs: VERSION_LIMIT_MS })).toString("utf8");
    version = /v(\d+\.\d+\.\d+\S*)/.exec(await tell("--version"))?.[1] ?? "unknown";
    const traits = versionTraits(version);
    const snapshotFormat = /v(\d+\.\d+\.\d+)/.exec(await tell("--snapshot-version"))?.[1] ?? "unknown";
    const kvm = await kvmState();
    if (!kvm.device) {
      const remedy = kvm.remedy ?? "use the provider qemu, which has software emulation";
      return { probe: { usable: false, version, path, reason: kvm.reason, remedy } };
    }
    const notes = [...traits.notes, ...paths.notes];
    const linux = await linuxGuests(assetsDir, kvm, kernel);
    if (linux.note !== undefined) notes.unshift(linux.note);
    return {
      probe: {
        usable: true,
        version,
        path,
        accelerator: kvm.mode === "native" ? "kvm" : "kvm-interpreted",
        guests: linux.able ? ["linux", "bare"] : ["bare"],
        notes,
        ...(linux.remedy === undefined ? {} : { linuxRemedy: linux.remedy }),
      },
      found: { paths, traits, snapshotFormat },
    };
  } catch (thrown) {
    const error = asStacyError(thrown);
    return {
      probe: {
        usable: false,
        ...(version === undefined ? {} : { version }),
        ...(path === undefined ? {} : { path }),
        reason: error.message,
        remedy: error.remedy ?? "see `stacyvm doctor`",
      },
    };
  }
}

/** Whether Linux guests run here, and if not, why not and what to do. */
async function linuxGuests(
  assetsDir: string,
  kvm: KvmState,
  kernel: KernelSetting | undefined,
): Promise<{ able: boolean; note?: string; remedy?: string }> {
  if (kvm.mode === "native") return { able: true };
  if (kernel !== undefined) return { able: true, note: `Linux guests boot ${kernel.path}: ${kvm.reason}` };
  if (kvm.mode === "none") return { able: false, note: `only the bare guest: ${kvm.reason}` };
  const made = await findInterpretedKernel(assetsDir);
  if (made !== undefined)
    return { able: true, note: `Linux guests boot ${made.release}, made for this: ${kvm.reason}` };
  return {
    able: false,
    note: `only the bare guest: ${kvm.reason}, and the kernel made for it is not here`,
    remedy:
      "run `stacyvm setup interpreted-kernel`, or name a kernel that runs here in `firecracker.kernel`; or use the provider qemu",
  };
}
