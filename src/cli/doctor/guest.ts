/** What guests boot: kernel, agent, and the tools that make the built-in images. */
import { access, mkdir, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import type { DataPaths } from "../../host/paths.ts";
import { buildAgent } from "../../images/crate-build.ts";
import { agentPath } from "../../images/guest-files.ts";
import { findKernel, installKernel } from "../../images/kernel.ts";
import type { Finding } from "./finding.ts";

export async function checkGuest(paths: DataPaths): Promise<Finding[]> {
  return [await checkKernel(paths), await checkAgent(paths), await checkTools()];
}

async function checkKernel({ assets }: DataPaths): Promise<Finding> {
  const name = "guest kernel";
  const meaning = "what guests boot";
  const kernel = await findKernel(assets);
  if (kernel !== undefined) return { name, state: "ok", detail: kernel.release, meaning };
  return {
    name,
    state: "missing",
    detail: "not there",
    meaning,
    remedy: "run `stacyvm setup kernel`",
    async fix() {
      await mkdir(assets, { recursive: true });
      return `installed ${(await installKernel(assets)).release}`;
    },
  };
}

async function checkAgent({ assets }: DataPaths): Promise<Finding> {
  const name = "guest agent";
  const meaning = "the guest's first program, which runs the commands";
  const path = agentPath(assets);
  const size = await stat(path).then(
    (found) => found.size,
    () => undefined,
  );
  if (size !== undefined) return { name, state: "ok", detail: `${path}, ${(size / 2 ** 20).toFixed(2)} MiB`, meaning };
  return {
    name,
    state: "missing",
    detail: "not there",
    meaning,
    remedy: "run `stacyvm setup agent`",
    async fix() {
      await mkdir(assets, { recursive: true });
      return buildAgent(assets);
    },
  };
}

/** What `src/images` and `src/launcher` call. */
const TOOLS: [string, string][] = [
  ["mke2fs", "e2fsprogs"],
  ["mmdebstrap", "mmdebstrap"],
  ["filefrag", "e2fsprogs"],
];

async function checkTools(): Promise<Finding> {
  const name = "tools";
  const meaning = "make disks, and the built-in images from the distribution's packages";
  const path = `${process.env.PATH ?? ""}${delimiter}/usr/sbin${delimiter}/sbin`.split(delimiter);
  const missing: string[] = [];
  for (const [tool, debian] of TOOLS) {
    const found = await Promise.any(path.map((dir) => access(join(dir, tool)))).then(
      () => true,
      () => false,
    );
    if (!found) missing.push(`${tool} (package ${debian})`);
  }
  if (missing.length === 0) return { name, state: "ok", detail: TOOLS.map(([tool]) => tool).join(", "), meaning };
  const state = missing.some((each) => each.startsWith("mke2fs")) ? "missing" : "note";
  return { name, state, detail: `not installed: ${missing.join(", ")}`, meaning, remedy: "install these packages" };
}
