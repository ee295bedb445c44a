/** What runs machines: KVM, QEMU, Firecracker. */
import { loadConfig, validateConfig } from "../../config/load.ts";
import { asStacyError } from "../../host/error.ts";
import { kvmState } from "../../host/kvm.ts";
import type { DataPaths } from "../../host/paths.ts";
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
    const guests = `guests: ${probe.guests.join(", ") || "none"}`;
    const facts = `${probe.version} (${probe.path}), ${probe.accelerator}, ${guests}`;
    // What is said of KVM above is not said again.
    const notes = probe.notes.filter((each) => !each.includes(findings[0]?.detail ?? ""));
    findings.push({ name: TITLES[vmm.name], state: "ok", detail: [facts, ...notes].join("; "), meaning });
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

async function checkKvm(): Promise<Finding> {
  const meaning = "hardware virtualisation; without it guests run in software emulation, many times slower";
  try {
    const kvm = await kvmState();
    const detail = kvm.linux ? `runs Linux guests: ${kvm.reason}` : kvm.reason;
    return { name: "KVM", state: kvm.linux ? "ok" : "note", detail, meaning, remedy: kvm.remedy };
  } catch (thrown) {
    const error = asStacyError(thrown);
    return { name: "KVM", state: "missing", detail: error.message, meaning, remedy: error.remedy };
  }
}
