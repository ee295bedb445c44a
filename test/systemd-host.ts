/**
 * A systemd of its own for the unit in packaging/, on a host that runs another init or none of ours: as the first process of its own namespaces
 * (processes, mounts, network, control groups), with a user, a state directory and a checkout where the unit looks for them. Nothing of the host's is
 * changed but a control group, which is removed. Needs root.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { exists } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";

const run = promisify(execFile);
const SYSTEMD = "/lib/systemd/systemd";
/** Above what distributions give to users. */
const UID = 64_999;
const SPACES = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"];

/** Where systemd keeps its groups: version 1 has a hierarchy for that alone. */
async function groupsOfSystemd(): Promise<string> {
  return (await exists("/sys/fs/cgroup/cgroup.controllers")) ? "/sys/fs/cgroup" : "/sys/fs/cgroup/systemd";
}

/** Why there cannot be one here, or false. */
export async function whyNoSystemd(): Promise<string | false> {
  if (process.getuid?.() !== 0) return "needs root";
  if (!(await exists(SYSTEMD))) return `there is no ${SYSTEMD}; the package systemd has it`;
  if (!(await exists(join(await groupsOfSystemd(), "cgroup.procs")))) return "systemd's control groups are not mounted";
  return false;
}

/** The directories are bound before /tmp, in which they may lie, is covered. */
const INSIDE = `set -e
echo $$ > "$1/cgroup.procs"
exec unshare ${SPACES.join(" ")} --fork --kill-child sh -c '
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /run
for name in checkout state units; do mkdir -p /run/given/$name; mount --rbind "$1" /run/given/$name; shift; done
mount -t tmpfs -o mode=1777 none /tmp
for each in opt var/lib; do mount -t tmpfs -o mode=755 none /$each; mkdir /$each/stacyvm; done
mount --rbind /run/given/checkout /opt/stacyvm
mount --bind /run/given/state /var/lib/stacyvm
mount --bind /run/given/units /etc/systemd
for name in passwd group; do cp /etc/$name /run/$name; mount --bind /run/$name /etc/$name; done
echo "stacyvm:x:${UID}:${UID}::/var/lib/stacyvm:/usr/sbin/nologin" >> /etc/passwd
echo "stacyvm:x:${UID}:" >> /etc/group
mount -t proc none /proc
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then mount -t cgroup2 none /sys/fs/cgroup
else mount -t tmpfs -o mode=755 none /sys/fs/cgroup; mkdir /sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd; fi
exec env -i container=stacyvm PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_LOG_TARGET=console ${SYSTEMD} --system --unit=multi-user.target
' sh "$2" "$3" "$4"`;

/** What a distribution brings, as little as the unit asks for; and where the server's words go, since there is no journal. */
async function makeUnits(dir: string): Promise<void> {
  const system = join(dir, "system");
  await mkdir(join(system, "stacyvm.service.d"), { recursive: true });
  for (const name of ["sysinit", "basic", "shutdown", "network-online", "umount", "final"])
    await writeFile(join(system, `${name}.target`), `[Unit]\nDescription=${name}\nDefaultDependencies=no\n`);
  await writeFile(join(system, "multi-user.target"), "[Unit]\nDescription=all\nWants=stacyvm.service\n");
  await writeFile(
    join(system, "stacyvm.service"),
    await readFile(join(packageRoot, "packaging", "stacyvm.service"), "utf8"),
  );
  const own = ["[Service]", "ExecStart=", "ExecStart=/opt/stacyvm/bin/stacyvm serve"];
  const log = ["StandardOutput=append:/run/server.log", "StandardError=append:/run/server.log"];
  await writeFile(join(system, "stacyvm.service.d", "test.conf"), [...own, ...log, ""].join("\n"));
}

export class SystemdHost implements AsyncDisposable {
  readonly #unshare: ChildProcess;
  readonly #group: string;
  readonly #said: () => string;
  readonly #pid: number;

  private constructor(unshare: ChildProcess, group: string, said: () => string, pid: number) {
    this.#unshare = unshare;
    this.#group = group;
    this.#said = said;
    this.#pid = pid;
  }

  /** @param state what is /var/lib/stacyvm there @param work an empty directory */
  static async start(state: string, work: string): Promise<SystemdHost> {
    await makeUnits(work);
    const group = join(await groupsOfSystemd(), `stacyvm-systemd-${process.pid}`);
    await mkdir(group);
    const unshare = spawn("sh", ["-c", INSIDE, "sh", group, packageRoot, state, work], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    for (const stream of [unshare.stdout, unshare.stderr]) stream.on("data", (text) => (said += text));
    for (;;) {
      if (unshare.exitCode !== null || unshare.signalCode !== null) {
        await removeGroups(group);
        throw new Error(`systemd did not start:\n${said}`);
      }
      const children = await readFile(`/proc/${unshare.pid}/task/${unshare.pid}/children`, "utf8").catch(() => "");
      const pid = Number(children.trim());
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      if (name.trim() === "systemd") return new SystemdHost(unshare, group, () => said, pid);
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  /** As root, there, with the service as its server: by the data directory a command of root's would be one itself. @returns what it printed @throws with what systemd and the server have said */
  async run(...command: string[]): Promise<string> {
    const inside = ["--target", String(this.#pid), ...SPACES, "env", "STACYVM_URL=http://127.0.0.1:7423", ...command];
    try {
      return (await run("nsenter", inside, { maxBuffer: 16 << 20 })).stdout.trim();
    } catch (cause) {
      const log = await run("nsenter", ["--target", String(this.#pid), "--mount", "cat", "/run/server.log"]).catch(
        () => undefined,
      );
      throw new Error(`${command.join(" ")}: ${(cause as Error).message}\n${this.#said()}\n${log?.stdout}`, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#unshare, "close");
    // It has its first process killed with it, and that all others.
    this.#unshare.kill("SIGKILL");
    await ended;
    await removeGroups(this.#group);
  }
}

/** The processes are dead; the kernel takes a moment to let go of their groups. */
async function removeGroups(group: string): Promise<void> {
  for (const entry of await readdir(group, { withFileTypes: true }).catch(() => []))
    if (entry.isDirectory()) await removeGroups(join(group, entry.name));
  for (let tries = 0; tries < 500; tries++) {
    const error = await rmdir(group).then(
      () => undefined,
      (thrown: NodeJS.ErrnoException) => thrown,
    );
    if (error === undefined || error.code === "ENOENT") return;
    if (error.code !== "EBUSY") throw error;
    await new Promise((wake) => setTimeout(wake, 20));
  }
  throw new Error(`the control group ${group} is still in use`);
}
