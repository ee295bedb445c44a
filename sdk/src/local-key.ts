/**
 * The key that a server leaves for programs of its own user: `server.key` in its data directory (`STACYVM_DATA_DIR`, else where an
 * installed server keeps its data), readable by that user only. It goes to that server alone: to its address, and only while the
 * process that wrote it lives, since anybody may listen on a port that it has left.
 */

interface NodeProcess {
  env: Record<string, string | undefined>;
  getuid?(): number;
  getBuiltinModule?(name: string): unknown;
}
interface Files {
  readFileSync(path: string, encoding: "utf8"): string;
  statSync(path: string): { uid: number; mode: number };
}

/** @param url the server's. @returns `undefined` where there is none: another host, a browser, no such server */
export function localKey(url: string): string | undefined {
  const { process } = globalThis as { process?: NodeProcess };
  const files = process?.getBuiltinModule?.("node:fs") as Files | undefined;
  if (process === undefined || files === undefined) return undefined;
  const { env } = process;
  const root = env.STACYVM_DATA_DIR || `${env.XDG_DATA_HOME || `${env.HOME ?? ""}/.local/share`}/stacyvm`;
  try {
    const path = `${root}/server.key`;
    const { uid, mode } = files.statSync(path);
    if (uid !== process.getuid?.() || (mode & 0o077) !== 0) return undefined;
    const found = JSON.parse(files.readFileSync(path, "utf8")) as Record<string, unknown>;
    if (typeof found.key !== "string" || originOf(String(found.url)) !== originOf(url)) return undefined;
    // Behind the program's name, which may have spaces and brackets: field 22, counted from field 3.
    const stat = files.readFileSync(`/proc/${Number(found.pid)}/stat`, "utf8");
    const startTime = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return startTime === found.start_time ? found.key : undefined;
  } catch {
    return undefined;
  }
}

/** In the file that `STACYVM_API_KEY_FILE` names, if it does. @throws Error when there is none in it */
export function keyOfFile(): string | undefined {
  const { process } = globalThis as { process?: NodeProcess };
  const path = process?.env.STACYVM_API_KEY_FILE;
  const files = process?.getBuiltinModule?.("node:fs") as Files | undefined;
  if (!path || files === undefined) return undefined;
  const key = files.readFileSync(path, "utf8").trim();
  if (key === "") throw new Error(`${path} is empty`);
  return key;
}

function originOf(url: string): string {
  return new URL(url).origin.replace("//localhost", "//127.0.0.1");
}
