/**
 * The host's TSC frequency in kHz, where it is known for sure. An emulated guest reads the host's counter, and measuring it
 * against an emulated timer goes wrong on a busy host: about one boot in 15 then stood still for 20 s in the APIC's calibration
 * (docs/measurements.md). A guest that is told the frequency measures nothing.
 */
import { readFile } from "node:fs/promises";
import { once } from "./once.ts";
import { unlessShort } from "./shortage.ts";

export const tscKhz: () => Promise<number | undefined> = once(look);

async function look(): Promise<number | undefined> {
  // Not there is an answer; the next kind of machine would be another key, so a shortage is none.
  const exported = Number(await readFile("/sys/devices/system/cpu/cpu0/tsc_freq_khz", "latin1").catch(unlessShort("")));
  if (exported > 0) return exported;
  const cpuinfo = await readFile("/proc/cpuinfo", "latin1");
  // Only where the hypervisor states it is this the counter's frequency; elsewhere it is the core's at the moment.
  if (!/^flags\s*:.*\btsc_known_freq\b/m.test(cpuinfo)) {
    const base = Number(
      await readFile("/sys/devices/system/cpu/cpu0/cpufreq/base_frequency", "latin1").catch(unlessShort("")),
    );
    return base > 0 ? base : undefined;
  }
  const mhz = Number(/^cpu MHz\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1] ?? 0);
  return mhz > 0 ? Math.round(mhz * 1000) : undefined;
}
