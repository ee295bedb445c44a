/** What of QEMU is on this host. `STACYVM_QEMU` names another binary. */
import { delimiter, resolve } from "node:path";
import { asStacyError } from "../../host/error.ts";
import { firstExisting } from "../../host/exists.ts";
import { kvmState } from "../../host/kvm.ts";
import { runTool } from "../../host/run.ts";
import type { VmmProbe } from "../vmm.ts";

const REMEDY = "install qemu-system-x86 with your distribution's package manager";
const OLDEST = 6;

export async function probeQemu(configured = process.env.STACYVM_QEMU): Promise<VmmProbe> {
  const name = configured ?? "qemu-system-x86_64";
  // It is started from another directory, and where no PATH counts.
  const path = name.includes("/") ? resolve(name) : await findOnPath(name);
  if (path === undefined) return { usable: false, reason: `${name} is not on PATH`, remedy: REMEDY };
  try {
    const text = (await runTool(path, ["--version"], { timeoutMs: 10_000 })).toString("utf8");
    const version = /version (\d+\.\d+\.\d+)/.exec(text)?.[1];
    if (version === undefined)
      return { usable: false, path, reason: `${path} --version says: ${text.trim()}`, remedy: REMEDY };
    if (Number(version.split(".")[0]) < OLDEST) {
      return {
        usable: false,
        path,
        version,
        reason: `QEMU ${version} is older than ${OLDEST}.0`,
        remedy: "install a newer QEMU",
      };
    }
    const kvm = await kvmState();
    const native = kvm.mode === "native";
    const notes = native ? [] : [`software emulation: ${kvm.reason}`];
    return { usable: true, version, path, accelerator: native ? "kvm" : "tcg", guests: ["linux"], notes };
  } catch (thrown) {
    const error = asStacyError(thrown);
    return { usable: false, path, reason: error.message, remedy: error.remedy ?? REMEDY };
  }
}

function findOnPath(name: string): Promise<string | undefined> {
  return firstExisting((process.env.PATH ?? "").split(delimiter).map((dir) => resolve(dir, name)));
}
