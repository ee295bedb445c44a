/** What a Linux guest boots from: kernel and initramfs, with the digests of what is really booted. */
import { existsSync } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { StacyError } from "../host/error.ts";
import { packageRoot } from "../host/paths.ts";
import { type GuestKernel, type KernelChoice, loadGuestKernel } from "./guest-kernel.ts";
import { buildInitramfs, type Initramfs } from "./initramfs.ts";

export interface GuestFiles {
  kernel: GuestKernel;
  initramfs: Initramfs;
}

/** What the published package brings along. */
const PREBUILT = join(packageRoot, "prebuilt", "stacyvm-agent");
const hasPrebuilt = existsSync(PREBUILT);

/** The compiled agent: the package's own, which is never older than the rest of it, else where set-up puts it. */
export function agentPath(assets: string): string {
  return process.env.STACYVM_AGENT ?? (hasPrebuilt ? PREBUILT : join(assets, "agent", "stacyvm-agent"));
}

/** @throws StacyError `unavailable` naming what is missing; `invalid` for a user's kernel that will not do */
export async function loadGuestFiles(assets: string, choice: KernelChoice): Promise<GuestFiles> {
  const kernel = await loadGuestKernel(assets, choice);
  const agent = agentPath(assets);
  await access(agent).catch(() => {
    throw new StacyError("unavailable", `the guest agent is missing: ${agent}`, {
      phase: "resolve",
      remedy: "run `stacyvm setup`",
    });
  });
  return { kernel, initramfs: await buildInitramfs(assets, agent, kernel.modules) };
}
