/** Test files that a root runs again as an ordinary user, who may open /dev/kvm: what a server does that is not root. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { dataPaths, packageRoot } from "../src/host/paths.ts";

const execute = promisify(execFile);
const ORDINARY = 65_534;
/** Every system has it. */
const PLACE = "/mnt";
const asOrdinary = ["setpriv", `--reuid=${ORDINARY}`, `--regid=${ORDINARY}`, "--clear-groups", "--inh-caps=-all"];

/** Why they cannot be run so here, or false. */
export async function whyNotOrdinary(): Promise<string | false> {
  if (process.getuid?.() !== 0) return "it is for root: an ordinary user runs those tests by itself";
  const [command = "", ...args] = [...asOrdinary, process.execPath, join(packageRoot, "test/ordinary-user.ts")];
  return execute(command, args).then(
    () => false,
    () => `an ordinary user cannot read ${packageRoot}`,
  );
}

/**
 * In a mount namespace with a /dev/kvm of its own that everybody may open, on a copy of the checkout's assets. All of it is at a place that the
 * user gets to, whoever may pass the directory that it really lies in.
 * @throws with all that the tests said, when one fails
 */
export async function asOrdinaryUser(files: readonly string[]): Promise<string> {
  const home = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "ordinary-"));
  try {
    await mkdir(join(home, "data"));
    await execute("cp", ["-r", "--reflink=auto", "--sparse=always", dataPaths().assets, join(home, "data/assets")]);
    await execute("chown", ["-R", `${ORDINARY}:${ORDINARY}`, home]);
    const script = [
      "set -e",
      `mknod -m 666 ${home}/kvm c 10 232`,
      `mount --bind ${home}/kvm /dev/kvm`,
      `mount --bind ${home} ${PLACE}`,
      `cd ${PLACE}`,
      `exec ${asOrdinary.join(" ")} "$@"`,
    ].join("\n");
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const node = [process.execPath, "--test", "--test-reporter=tap", "--test-timeout=500000"];
    const tests = files.map((file) => join(packageRoot, "test", file));
    const args = ["--mount", "sh", "-c", script, "sh", ...node, ...tests];
    const own = { HOME: PLACE, TMPDIR: PLACE, STACYVM_TEST_DIR: PLACE, STACYVM_DATA_DIR: join(PLACE, "data") };
    const run = execute("unshare", args, { env: { ...env, ...own }, cwd: home, maxBuffer: 64 << 20 });
    return await run.then(
      ({ stdout }) => stdout,
      (error: { stdout?: string; stderr?: string }) => {
        throw new Error(`as an ordinary user:\n${error.stdout}\n${error.stderr}`);
      },
    );
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}
