/** Is there a usable Firecracker on this host, and what can it run? */
import { asStacyError } from "../../host/error.ts";
import { kvmState } from "../../host/kvm.ts";
import { runTool } from "../../host/run.ts";
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
export async function probeFirecracker(assetsDir: string, options: LocateOptions): Promise<Probed> {
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
    if (!kvm.linux) notes.unshift(`only the bare guest: ${kvm.reason}`);
    const guests = kvm.linux ? (["linux", "bare"] as const) : (["bare"] as const);
    return {
      probe: { usable: true, version, path, accelerator: "kvm", guests: [...guests], notes },
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
