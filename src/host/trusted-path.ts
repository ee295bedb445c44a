/**
 * Whose a place of this host is. What lies in a data directory is run (monitors), booted (kernels, images) and believed (the database), so
 * it has to be of users who could do all that anyway: this process's own, root, whoever owns this program's files, and behind `sudo` its caller. For root, who writes
 * into anybody's directories, all directories on the way count too: whoever may rename one of them can put another in its place.
 */
import { lstat, readdir, readFile, readlink, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { errno, StacyError } from "./error.ts";
import { exists } from "./exists.ts";
import { isRoot } from "./is-root.ts";
import { packageRoot } from "./paths.ts";

const NOT_SEEN = ["ENOENT", "ENOTDIR", "EACCES"];
const STICKY = 0o1000;
/** As the kernel has it (MAXSYMLINKS). */
const MOST_LINKS = 40;

/** What is not there yet is nobody's. @throws StacyError `permission`: it is, or may be made, another user's */
export async function assertTrustedPath(path: string): Promise<void> {
  const trusted = await trustedUsers();
  const whole = resolve(path);
  if (!isRoot()) {
    const found = await look(() => stat(whole));
    if (found !== undefined && !trusted.has(found.uid)) throw foreign(whole, whole, found.uid);
    return;
  }
  const [mounted, hidden] = await Promise.all([mountsOfContainer(), hiddenUser()]);
  let left = whole.split("/").filter((name) => name !== "");
  let at = "/";
  for (let links = 0; left.length > 0; ) {
    const next = join(at, left[0] as string);
    left = left.slice(1);
    const found = await look(() => lstat(next));
    if (found === undefined) return;
    // Whoever mounted it in a container, from outside of it, chose whose it is.
    if (mounted.has(next)) trusted.add(found.uid);
    // On the way, root outside of our user namespace is among those who cannot be told apart in it.
    const onTheWay = left.length > 0 && found.uid === hidden;
    if (!trusted.has(found.uid) && !onTheWay) throw foreign(whole, next, found.uid);
    if (found.isSymbolicLink()) {
      if (++links > MOST_LINKS) return; // the kernel follows it no further either
      left = [
        ...resolve(at, await readlink(next))
          .split("/")
          .filter((name) => name !== ""),
        ...left,
      ];
      at = "/";
      continue;
    }
    // The last one is closed by whoever takes it.
    if (left.length > 0 && (found.mode & 0o002) !== 0 && (found.mode & STICKY) === 0) throw open(whole, next);
    at = next;
  }
}

/** Of the things in `dir` itself; what is deeper is in them. @throws StacyError `permission`: another user has put one there */
export async function assertTrustedContents(dir: string): Promise<void> {
  const trusted = await trustedUsers();
  if ((await mountsOfContainer()).has(resolve(dir))) trusted.add((await stat(dir)).uid);
  for (const name of (await look(() => readdir(dir))) ?? []) {
    const found = await look(() => lstat(join(dir, name)));
    if (found !== undefined && !trusted.has(found.uid)) throw foreign(dir, join(dir, name), found.uid);
  }
}

async function look<T>(at: () => Promise<T>): Promise<T | undefined> {
  return at().catch((error: unknown) => {
    if (NOT_SEEN.includes(errno(error) ?? "")) return undefined;
    throw error;
  });
}

async function trustedUsers(): Promise<Set<number>> {
  const users = new Set([0, process.geteuid?.() ?? 0, (await stat(join(packageRoot, "package.json"))).uid]);
  const { SUDO_UID } = process.env;
  if (isRoot() && SUDO_UID !== undefined && /^\d+$/.test(SUDO_UID)) users.add(Number(SUDO_UID));
  return users;
}

/** In a user namespace that does not have all users, the others are shown as this one. */
async function hiddenUser(): Promise<number | undefined> {
  const map = await readFile("/proc/self/uid_map", "utf8").catch(() => "");
  if (map === "" || /^\s*0\s+0\s+4294967295\s*$/.test(map)) return undefined;
  return Number(await readFile("/proc/sys/kernel/overflowuid", "utf8"));
}

/** What was mounted into a container; on a host, anybody's stick or home may be a mount. */
async function mountsOfContainer(): Promise<Set<string>> {
  const inside =
    process.env.KUBERNETES_SERVICE_HOST !== undefined ||
    (await Promise.all(["/.dockerenv", "/run/.containerenv"].map(exists))).includes(true);
  if (!inside) return new Set();
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  // Blanks in names are octal there (proc(5)).
  const places = lines.map((line) => line.split(" ")[4] ?? "");
  return new Set(
    places.map((place) => place.replace(/\\(\d{3})/g, (_, code) => String.fromCharCode(parseInt(code, 8)))),
  );
}

function foreign(path: string, what: string, uid: number): StacyError {
  const where = what === path ? "" : `, so ${path} is not safe`;
  return new StacyError("permission", `${what} belongs to another user of this host (uid ${uid})${where}`, {
    remedy: `choose another data directory (STACYVM_DATA_DIR), or run this as that user; once you have seen that all in it is good, \`chown\` it`,
  });
}

function open(path: string, what: string): StacyError {
  return new StacyError(
    "permission",
    `everybody on this host may write into ${what}, and put something else in the place of ${path}`,
    {
      remedy: `choose another data directory (STACYVM_DATA_DIR), or \`chmod o-w ${what}\``,
    },
  );
}
