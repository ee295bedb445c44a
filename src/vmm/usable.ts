import { StacyError } from "../host/error.ts";
import type { Vmm, VmmProbe } from "./vmm.ts";

/** What the probe of a VMM tells that can be used. @throws StacyError `unavailable` with the reason and the remedy */
export async function assertUsable(vmm: Vmm): Promise<Extract<VmmProbe, { usable: true }>> {
  const probe = await vmm.probe();
  if (probe.usable) return probe;
  throw new StacyError("unavailable", `${vmm.name} cannot be used: ${probe.reason}`, {
    phase: "resolve",
    remedy: probe.remedy,
  });
}
