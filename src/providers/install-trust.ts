/** Puts the certificate of a sandbox's authority to where programs of its guest look for whom to trust. */
import { Readable } from "node:stream";
import { pack } from "tar-stream";
import { SYSTEM_BUNDLES, trustFiles } from "../egress/secrets/trust.ts";
import type { Agent } from "../guest/agent.ts";

const CERTIFICATES = "/etc/ssl/certs";
const FILE = 0o644;

/** @param certificate PEM */
export async function installTrust(agent: Agent, certificate: string): Promise<void> {
  const is = async (path: string, kind: "file" | "directory"): Promise<boolean> => {
    const found = await agent.stat(path, { follow: true }).catch(() => undefined);
    return found?.kind === kind && (kind === "directory" || found.size > 0);
  };
  const [directory, ...known] = await Promise.all([
    is(CERTIFICATES, "directory"),
    ...SYSTEM_BUNDLES.map((path) => is(path, "file")),
  ]);
  const bundle = SYSTEM_BUNDLES.find((_, at) => known[at]);
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
    bundle === undefined ? undefined : append(agent, bundle, certificate),
  ]);
}

/** In its place: whatever leads there still does. */
async function append(agent: Agent, path: string, certificate: string): Promise<void> {
  await agent.writeFile(path, Buffer.from(`\n${certificate}`), { append: true, follow: true });
}
