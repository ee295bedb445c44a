/** What a Linux guest boots from: kernel and initramfs, as set-up left them, with their digests. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { StacyError } from "../host/error.ts";
import { packageRoot } from "../host/paths.ts";
import { buildInitramfs } from "./initramfs.ts";
import { findKernel } from "./kernel.ts";

export interface GuestFiles {
  /** Kernel release, for people. */
  release: string;
  vmlinuz: string;
  vmlinux: string;
  initramfs: string;
  /** sha256, hex */
  kernelDigest: string;
  initramfsDigest: string;
}

/** What the published package brings along. */
const PREBUILT = join(packageRoot, "prebuilt", "stacyvm-agent");
const hasPrebuilt = existsSync(PREBUILT);

/** The compiled agent: the package's own, which is never older than the rest of it, else where set-up puts it. */
export function agentPath(assets: string): string {
  return process.env.STACYVM_AGENT ?? (hasPrebuilt ? PREBUILT : join(assets, "agent", "stacyvm-agent"));
}

/** @throws StacyError `unavailable` naming what is missing */
export async function loadGuestFiles(assets: string): Promise<GuestFiles> {
  const kernel = await findKernel(assets);
  if (kernel === undefined) throw missing("the guest kernel", join(assets, "kernel"));
  const agent = agentPath(assets);
  await access(agent).catch(() => {
    throw missing("the guest agent", agent);
  });
  const [initramfs, image] = await Promise.all([
    buildInitramfs(assets, agent, kernel.modules),
    readFile(kernel.vmlinuz),
  ]);
  return {
    release: kernel.release,
    vmlinuz: kernel.vmlinuz,
    vmlinux: kernel.vmlinux,
    initramfs: initramfs.path,
    kernelDigest: createHash("sha256").update(image).digest("hex"),
    initramfsDigest: initramfs.digest,
  };
}

function missing(what: string, where: string): StacyError {
  return new StacyError("unavailable", `${what} is missing: ${where}`, {
    phase: "resolve",
    remedy: "run `stacyvm setup`",
  });
}
