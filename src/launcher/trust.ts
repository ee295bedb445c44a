/**
 * Where programs of a guest look for whom to trust gets the certificate of its sandbox's authority. What is the same for all sandboxes of
 * an image is done once in its golden machine: the overlay copies the system's bundle and the directories on the way up and brings them
 * to the disk. That changes nothing that programs or an image's layer could show, so it is there for sandboxes without secrets too.
 */
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { SYSTEM_BUNDLES, trustFiles } from "../egress/secrets/trust.ts";
import type { Agent, FileStat } from "../guest/agent.ts";

const CERTIFICATES = "/etc/ssl/certs";
/** The longest part of the way to `update-ca-certificates`' own directory that there is. */
const LOCAL = ["/usr/local/share/ca-certificates", "/usr/local/share"];
const FILE = 0o644;

interface Found {
  /** The image's own bundle; absent: it has none. */
  bundle?: string;
  /** It has a directory of single certificates. */
  directory: boolean;
}

async function find(agent: Agent): Promise<Found> {
  const is = async (path: string, kind: "file" | "directory"): Promise<boolean> => {
    const found = await lookAt(agent, path);
    return found?.kind === kind && (kind === "directory" || found.size > 0);
  };
  const [directory, ...known] = await Promise.all([
    is(CERTIFICATES, "directory"),
    ...SYSTEM_BUNDLES.map((path) => is(path, "file")),
  ]);
  const bundle = SYSTEM_BUNDLES.find((_, at) => known[at]);
  return { directory, ...(bundle === undefined ? {} : { bundle }) };
}

function lookAt(agent: Agent, path: string): Promise<FileStat | undefined> {
  return agent.stat(path, { follow: true }).catch(() => undefined);
}

/** In a golden machine, before it is saved. Never rejects: where it cannot be done, `installTrust` does it for each sandbox. */
export async function prepareTrust(agent: Agent): Promise<void> {
  const { bundle } = await find(agent);
  if (bundle !== undefined) await append(agent, bundle, "").catch(() => {});
  for (const path of LOCAL) {
    const found = await lookAt(agent, path);
    if (found?.kind !== "directory") continue;
    await agent.chmod(path, found.mode).catch(() => {});
    return;
  }
}

/** @param certificate PEM */
export async function installTrust(agent: Agent, certificate: string): Promise<void> {
  const { bundle, directory } = await find(agent);
  const files = trustFiles(certificate, bundle, directory);
  const archive = pack();
  for (const file of files) {
    const name = file.path.slice(1);
    if ("link" in file) archive.entry({ name, type: "symlink", linkname: file.link, mode: 0o777 });
    else archive.entry({ name, mode: FILE }, file.content);
  }
  archive.finalize();
  await Promise.all([
    agent.tarIn("/", Readable.from(archive)),
    bundle === undefined ? undefined : append(agent, bundle, `\n${certificate}`),
  ]);
}

/** In its place: whatever leads there still does. */
async function append(agent: Agent, path: string, text: string): Promise<void> {
  await agent.writeFile(path, Buffer.from(text), { append: true, follow: true });
}
