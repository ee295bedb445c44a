/** The host's limits: open files, processes, memory, cgroups, clock. */
import { readFile, stat } from "node:fs/promises";
import { cpus, freemem, totalmem } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../host/paths.ts";
import { tscKhz } from "../../host/tsc.ts";
import { confinement } from "../../vmm/cgroup.ts";
import type { Finding } from "./finding.ts";

/** A sandbox costs the server about ten descriptors; with fewer, some dozens of them already meet the limit. */
const FEW_FILES = 1_024;
const FEW_PROCESSES = 1_024;
const DAY_MS = 86_400_000;

export async function checkHost(): Promise<Finding[]> {
  return [checkSize(), await checkLimits(), await checkCgroups(), await checkClock()];
}

function checkSize(): Finding {
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const low = freemem() < 2 ** 30;
  return {
    name: "size",
    state: low ? "note" : "ok",
    detail: `${cpus().length} CPUs, ${gib(totalmem())} memory, ${gib(freemem())} of it free`,
    meaning: "what sandboxes share",
    remedy: low ? "end something, or give sandboxes less with --memory" : undefined,
  };
}

async function checkLimits(): Promise<Finding> {
  const text = await readFile("/proc/self/limits", "latin1");
  const soft = (name: string): number => {
    const value = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(text)?.[1] ?? "";
    return value === "unlimited" ? Number.POSITIVE_INFINITY : Number(value);
  };
  const files = soft("Max open files");
  const processes = soft("Max processes");
  const low = files < FEW_FILES || processes < FEW_PROCESSES;
  return {
    name: "limits",
    state: low ? "note" : "ok",
    detail: `${files} open files, ${processes} processes`,
    meaning: "how many sandboxes one server can hold",
    remedy: low ? "raise them: `ulimit -n 65536`, or LimitNOFILE= and LimitNPROC= in the unit" : undefined,
  };
}

async function checkCgroups(): Promise<Finding> {
  const name = "cgroups";
  const meaning = "each sandbox gets its share of memory, CPU and disk, and not what the others need";
  const { controllers, version, lacks } = await confinement();
  const detail = version === undefined ? (lacks ?? "none") : `version ${version}: ${controllers.join(", ")}`;
  if (lacks === undefined) return { name, state: "ok", detail, meaning };
  const remedy = "run the server as the unit in packaging/ does (Delegate=yes), or as root where there is version 1";
  return { name, state: "note", detail: version === undefined ? detail : `${detail}; ${lacks}`, meaning, remedy };
}

async function checkClock(): Promise<Finding> {
  const source = await readFile("/sys/devices/system/clocksource/clocksource0/current_clocksource", "utf8").catch(
    () => "unknown",
  );
  const khz = await tscKhz();
  const { mtimeMs } = await stat(join(packageRoot, "package.json"));
  const wrong = mtimeMs > Date.now() + DAY_MS; // this program is from the future
  const tsc = khz === undefined ? "frequency of the TSC not known" : `TSC ${(khz / 1e6).toFixed(2)} GHz`;
  return {
    name: "clock",
    state: wrong ? "note" : "ok",
    detail: `${new Date().toISOString()}, ${source.trim()}, ${tsc}`,
    meaning: "guests get the time from here",
    remedy: wrong ? "set the clock: certificates fail in sandboxes too" : undefined,
  };
}
