/** What people should know of a host without KVM, said where machines are started: by the server once, by commands at a first start. */
import type { Client, SandboxInfo } from "../../sdk/src/index.ts";
import { note } from "./output.ts";

export const EMULATION =
  "machines run in software emulation here (no usable KVM): many times slower, and no boundary against hostile code";

/** Only a cold boot says so: that is the first start of a kind, and slow enough for somebody to ask why. */
export function emulationNote(path: string | undefined, accelerator: string | undefined): string | undefined {
  return path === "cold" && accelerator === "tcg" ? `note: ${EMULATION}` : undefined;
}

export function noteEmulation(path: string | undefined, accelerator: string | undefined): void {
  const text = emulationNote(path, accelerator);
  if (text !== undefined && process.stderr.isTTY) note(text);
}

/** The same of a sandbox that a server has started: it is there, and what is only worth knowing fails nothing. */
export async function noteEmulationOf(
  client: Client,
  { provider, boot }: SandboxInfo,
  signal: AbortSignal,
): Promise<void> {
  if (boot?.path !== "cold" || !process.stderr.isTTY) return;
  const all = await client.providers({ signal }).catch(() => []);
  noteEmulation(boot.path, all.find(({ name }) => name === provider)?.accelerator);
}
