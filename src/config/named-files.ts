/**
 * Files of this host that the configuration names and a server runs, boots, believes or has its secrets from. They lie outside of the data
 * directory, and are looked at as that is: whoever could change one has the server. The database is closed to others by whoever opens it.
 */
import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { StacyError } from "../host/error.ts";
import { assertTrustedPath } from "../host/trusted-path.ts";
import type { Config } from "./schema.ts";

/** Keys of programs, directories with programs, and files that are read. */
export const FILE_KEYS = [
  ...["network.ca_file", "secrets.key_file", "firecracker.path", "firecracker.jailer", "firecracker.kernel"],
  ...["firecracker.kernel_modules", "firecracker.jail_netns", "qemu.kernel", "qemu.kernel_modules"],
  ...["fleet.certificate_file", "fleet.key_file", "fleet.ca_file"],
] as const;

/** What SQLite believes beside a database. */
const BESIDE = ["-wal", "-shm", "-journal"];
const OTHERS_WRITE = 0o002;
const OTHERS_READ = 0o004;
/** Whoever reads it has what it closes. */
const SECRETS: ReadonlySet<string> = new Set(["secrets.key_file", "fleet.key_file"]);

/** What is not there yet is nobody's. @throws StacyError `permission`: another user has made, or may change, one of them */
export async function assertNamedFiles(config: Config): Promise<void> {
  for (const key of FILE_KEYS) {
    const path = pathOf(config, key);
    if (path === "") continue;
    await trusted(key, path);
    await closed(key, path);
  }
  const { path } = config.database;
  if (path === "") return;
  const key = "database.path";
  // Whoever may make files there gives SQLite a log to read before it is looked at: also where only owners may rename.
  await trusted(key, dirname(resolve(path)));
  await closed(key, dirname(resolve(path)));
  for (const each of ["", ...BESIDE]) await trusted(key, `${path}${each}`);
}

function pathOf(config: Config, key: (typeof FILE_KEYS)[number]): string {
  const [section, name] = key.split(".") as [keyof Config, string];
  return ((config[section] as Record<string, unknown>)[name] as string | undefined) ?? "";
}

async function trusted(key: string, path: string): Promise<void> {
  await assertTrustedPath(path).catch((error: unknown) => {
    if (!(error instanceof StacyError) || error.code !== "permission") throw error;
    throw refused(
      key,
      error.message,
      "choose another file, or run this as that user; once you have seen that it is good, `chown` it",
    );
  });
}

async function closed(key: string, path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return;
  if (SECRETS.has(key) && (found.mode & OTHERS_READ) !== 0) {
    throw refused(
      key,
      `everybody on this host may read ${path}`,
      `\`chmod o= ${path}\`, and make a new key if others use this host`,
    );
  }
  if ((found.mode & OTHERS_WRITE) === 0) return;
  throw refused(
    key,
    `everybody on this host may write ${found.isDirectory() ? "into " : ""}${path}`,
    `choose another place, or, once you have seen that what is there is good, \`chmod o-w ${path}\``,
  );
}

function refused(key: string, message: string, remedy: string): StacyError {
  return new StacyError("permission", `${key}: ${message}`, { phase: "config", remedy });
}
