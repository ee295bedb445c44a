/** What runs machines: KVM, QEMU, Firecracker. */
import { loadConfig, validateConfig } from "../../config/load.ts";
import { asStacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
import { kvmState } from "../../host/kvm.ts";
import { probeKvm } from "../../host/kvm-probe.ts";
import type { DataPaths } from "../../host/paths.ts";
import { loadGuestKernel } from "../../images/guest-kernel.ts";
import { type CellState, cellState } from "../../vmm/cell.ts";
import type { Vmm } from "../../vmm/vmm.ts";
import { vmms } from "../engine.ts";
import type { Finding } from "./finding.ts";

const TITLES = { qemu: "QEMU", firecracker: "Firecracker" } as const;

export async function checkMonitors(paths: DataPaths): Promise<Finding[]> {
  const findings = [await checkKvm()];
  let linux = false;
  // A configuration that is wrong has a finding of its own.
  const config = await loadConfig().then(
    (loaded) => loaded.config,
    () => validateConfig({}, "the defaults"),
  );
  for (const vmm of Object.values(vmms(paths, config))) {
    const meaning = vmm.name === "qemu" ? "runs Linux guests on every host" : "runs guests where KVM is usable";
    const probe = await vmm.probe();
    if (!probe.usable) {
      const detail = probe.version === undefined ? probe.reason : `${probe.version}: ${probe.reason}`;
      findings.push({ name: TITLES[vmm.name], state: "note", detail, meaning, remedy: probe.remedy });
      continue;
    }
    if (probe.guests.includes("linux")) linux = true;
    const kernel = await checkOwnKernel(vmm, paths);
    if (kernel !== undefined) findings.push(kernel);
    const guests = `guests: ${probe.guests.join(", ") || "none"}`;
    const facts = `${probe.version} (${probe.path}), ${probe.accelerator}, ${guests}`;
    // What is said of KVM above is not said again.
    const notes = probe.notes.map((each) => each.replace(`: ${findings[0]?.detail.split(";")[0]}`, ""));
    if (probe.linuxRemedy !== undefined) notes.push(probe.linuxRemedy);
    findings.push({ name: TITLES[vmm.name], state: "ok", detail: [facts, ...notes].join("; "), meaning });
    if (vmm.name === "qemu") findings.push(await checkCell());
  }
  if (!linux) {
    findings.push({
      name: "machine monitor",
      state: "missing",
      detail: "none can run Linux guests",
      meaning: "without one no sandbox starts",
      remedy: "install QEMU: `apt-get install qemu-system-x86`",
    });
  }
  return findings;
}

/** A kernel of the user's own, where there is one. */
async function checkOwnKernel(vmm: Vmm, { assets }: DataPaths): Promise<Finding | undefined> {
  const choice = await vmm.guestKernel();
  if (choice.setting === undefined) return undefined;
  const name = `${vmm.name}.kernel`;
  const meaning = "what this monitor's Linux guests boot, by your configuration";
  try {
    const { release, path } = await loadGuestKernel(assets, choice);
    return { name, state: "ok", detail: `${release} (${path})`, meaning };
  } catch (thrown) {
    const error = asStacyError(thrown);
    return { name, state: "missing", detail: error.message, meaning, remedy: error.remedy };
  }
}

/** What is around QEMU beside its filter. */
async function checkCell(): Promise<Finding> {
  const meaning = "QEMU in namespaces of its own, in which only its machine's files exist";
  let state: CellState;
  try {
    state = await cellState();
  } catch (thrown) {
    const { message: detail, remedy } = asStacyError(thrown);
    return { name: "QEMU's cell", state: "missing", detail, meaning, remedy };
  }
  if (state.usable) {
    const who = isRoot() ? "each under a user of its own" : "each in a user namespace";
    return { name: "QEMU's cell", state: "ok", detail: `machines start in one, ${who}`, meaning };
  }
  const remedy =
    "allow user namespaces to this user, or run the server as root; `stacyvm setup` compiles what is needed";
  return { name: "QEMU's cell", state: "note", detail: state.reason, meaning, remedy };
}

async function checkKvm(): Promise<Finding> {
  const meaning = "hardware virtualisation; without it guests run in software emulation, many times slower";
  try {
    const kvm = await kvmState();
    const native = kvm.mode === "native";
    const backend = kvm.mode === "interpreted" ? (await probeKvm())?.backend : undefined;
    const shown =
      backend === undefined || kvm.reason.includes(backend) ? "" : `; a vCPU shows the register of ${backend}`;
    const detail = native ? `runs Linux guests: ${kvm.reason}` : `${kvm.reason}${shown}`;
    return { name: "KVM", state: native ? "ok" : "note", detail, meaning, remedy: kvm.remedy };
  } catch (thrown) {
    const error = asStacyError(thrown);
    return { name: "KVM", state: "missing", detail: error.message, meaning, remedy: error.remedy };
  }
}
