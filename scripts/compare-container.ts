/**
 * What a program reads of its surroundings in a sandbox and in a container of the same image, side by side: `docs/guest-container.md`.
 * A difference without a reason is an error, so a new one is met by whoever makes it. Needs root, runc and erofs-utils.
 *
 *     node scripts/compare-container.ts [--check]      --check writes nothing
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { createImages } from "../src/images/store.ts";
import { startGuest, testIdentity } from "../test/agent-support.ts";

const IMAGE = "stacyvm/python";
const DOCUMENT = join(packageRoot, "docs/guest-container.md");

/** Python, in both: a row of names and values. */
const PROBE = `
import ctypes, glob, json, os, pwd, resource, socket
rows = {}
def add(kind, name, value): rows.setdefault(kind, {})[name] = str(value)
def text(path):
    try: return open(path).read().strip()
    except OSError as e: return e.strerror
for name, value in os.environ.items(): add("environment", name, value)
add("process", "user, group, groups", "%d %d %s" % (os.getuid(), os.getgid(), os.getgroups()))
add("process", "working directory", os.getcwd())
add("process", "umask", "%04o" % os.umask(0o22))
add("process", "process 1 is", "this command" if os.getpid() == 1 else text("/proc/1/comm"))
add("process", "its group's leader, its session's leader", "%s %s" % (os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()))
status = dict(l.split(":\\t", 1) for l in text("/proc/self/status").splitlines() if ":\\t" in l)
for name in "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp": add("process", name, status[name].strip())
add("process", "signals ignored, blocked", status["SigIgn"].strip() + " " + status["SigBlk"].strip())
add("process", "scheduling policy", os.sched_getscheduler(0))
add("process", "oom_score_adj", text("/proc/self/oom_score_adj"))
add("process", "control group", text("/proc/self/cgroup").splitlines()[-1])
for line in text("/proc/self/limits").splitlines()[1:]: add("limits", line[4:26].strip(), " ".join(line[26:].split()[:2]))
for line in text("/proc/self/mounts").splitlines():
    source, point, kind, options = line.split()[:4]
    if point.startswith("/sys/fs/cgroup/"): continue
    add("mounts", point, kind + " " + ",".join(o for o in options.split(",") if o.split("=")[0] in ("ro", "rw", "nosuid", "nodev", "noexec", "mode")))
for name in sorted(os.listdir("/dev")):
    if name[:2] in ("vd", "tt", "vc", "lo", "nv", "vp", "vh", "hv", "sd", "ra", "sg") or name.startswith(("dm-", "bus")): continue
    add("devices", "/dev/" + name, "there")
for name in ("kernel/osrelease", "kernel/pid_max", "kernel/threads-max", "kernel/shmmax", "kernel/shmall", "kernel/sem", "kernel/msgmax", "kernel/cap_last_cap",
  "kernel/unprivileged_bpf_disabled", "kernel/yama/ptrace_scope", "kernel/kptr_restrict", "kernel/dmesg_restrict", "kernel/perf_event_paranoid", "kernel/randomize_va_space",
  "kernel/core_pattern", "kernel/unprivileged_userns_clone", "fs/file-max", "fs/nr_open", "fs/aio-max-nr", "fs/pipe-max-size", "fs/inotify/max_user_watches",
  "fs/inotify/max_user_instances", "fs/protected_hardlinks", "fs/protected_symlinks", "fs/mqueue/msg_max", "vm/max_map_count", "vm/overcommit_memory", "vm/swappiness",
  "net/core/somaxconn", "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_keepalive_time",
  "net/ipv4/ip_forward", "net/ipv6/conf/all/disable_ipv6", "user/max_user_namespaces"):
    add("/proc/sys", name, " ".join(text("/proc/sys/" + name).split()))
add("/proc/sys", "can be written", os.access("/proc/sys/vm/swappiness", os.W_OK) and not os.statvfs("/proc/sys").f_flag & os.ST_RDONLY)
for path in "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/kcore", "/proc/sysrq-trigger", "/proc/kallsyms", "/proc/config.gz", "/sys/firmware", "/sys/kernel/security":
    hidden = any(l.split()[1] == path for l in text("/proc/self/mounts").splitlines())
    add("/proc and /sys", path, "hidden" if hidden else "there" if os.path.exists(path) else "not there")
add("/proc and /sys", "/sys can be written", not os.statvfs("/sys").f_flag & os.ST_RDONLY)
add("/proc and /sys", "processes of others in sight", len([p for p in os.listdir("/proc") if p.isdigit()]) > 3)
def resolves(name, family=0):
    try: return " ".join(sorted({i[4][0] for i in socket.getaddrinfo(name, 1, family)}))
    except OSError: return "no"
add("names", "its own name", resolves(socket.gethostname()))
add("names", "localhost", resolves("localhost"))
add("names", "interfaces", " ".join(sorted(n for _, n in socket.if_nameindex())))
for path in "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/machine-id": add("names", path, "there" if os.path.exists(path) and os.path.getsize(path) else "empty" if os.path.exists(path) else "not there")
libc = ctypes.CDLL(None, use_errno=True)
def tried(work):
    pid = os.fork()
    if pid == 0:
        try: os._exit(0 if work() else 1)
        except BaseException: os._exit(1)
    return "yes" if os.waitpid(pid, 0)[1] == 0 else "no"
add("may", "mount a tmpfs", tried(lambda: libc.mount(b"t", b"/mnt", b"tmpfs", 0, None) == 0 and libc.umount(b"/mnt") == 0))
add("may", "make a user namespace", tried(lambda: libc.unshare(0x10000000) == 0))
add("may", "... with a /proc of its own", tried(lambda: os.system("unshare -Urpf --mount-proc true 2>/dev/null") == 0))
add("may", "set its host's name", tried(lambda: socket.sethostname(socket.gethostname()) is None))
add("may", "set the clock", tried(lambda: __import__("time").clock_settime(0, __import__("time").time()) is None))
add("may", "make a device", tried(lambda: os.mknod("/tmp/null", 0o20600, os.makedev(1, 3)) is None))
add("may", "make a file without a name (O_TMPFILE)", tried(lambda: os.open("/tmp", os.O_TMPFILE | os.O_RDWR) > 0))
add("may", "a raw socket", tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)))
add("may", "raise its limits", tried(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1048576, 1048576)) is None))
os.mkdir("/usr/share/x-moved") ; os.rmdir("/usr/share/x-moved")
add("may", "rename a directory of the image", tried(lambda: os.rename("/usr/share/perl", "/usr/share/x-moved") or os.rename("/usr/share/x-moved", "/usr/share/perl") is None))
add("may", "trace a child (ptrace)", tried(lambda: libc.ptrace(0, 0, 0, 0) == 0))
add("may", "load kernel modules", tried(lambda: os.access("/proc/sys/kernel/modules_disabled", os.R_OK) and int(status["CapEff"], 16) >> 16 & 1))
print(json.dumps(rows))`;

type Rows = Record<string, Record<string, string>>;

/** Why they differ, by the first pattern that fits `KIND NAME`. */
const REASONS: readonly [RegExp, string][] = [
  [/^environment STACYVM_SANDBOX_ID/, "which sandbox it is"],
  [
    /^environment (HOME|TERM|PWD|LANG)/,
    "`runc` gives its specification's; a sandbox the image's, and TERM with a terminal",
  ],
  [/^process (process 1|processes|.*leader)/, "the agent is process 1: commands end without ending the machine"],
  [/^process (Cap|NoNewPrivs)/, "the machine is the wall, so root is root"],
  [/^process control group/, "each command has a part of the sandbox's group, and may make groups in it"],
  [/^process /, "what started it"],
  [
    /^limits (open files|processes|pending signals)/,
    "what servers expect; the control group bounds processes, and not the user",
  ],
  [/^limits /, "the machine's own kernel, and its memory"],
  [/^mounts \/$/, "the image's read-only disk below a writable one, where an engine has its own storage"],
  [/^mounts \/etc\//, "what the sandbox is called and resolves by; engines mount three of these too"],
  [
    /^mounts \/(proc\/sys\/kernel\/random|run\/stacyvm)/,
    "each copy of a machine has a boot id of its own, and namespaces a whole `/proc`",
  ],
  [/^mounts \/sys\/fs\/cgroup/, "programs make groups of their own"],
  [
    /^mounts \/(proc|sys)\/(bus|fs|irq|sys|acpi|asound|keys|latency_stats|timer_list|sched_debug|scsi|firmware)/,
    "hidden from containers, whose kernel is the host's; this is the machine's own",
  ],
  [/^mounts \/run/, "programs write pid files and sockets there"],
  [/^mounts /, "it is the machine's own kernel, and root may do what root may"],
  [/^devices /, "the machine's own devices; an engine makes a few"],
  [
    /^\/proc\/sys (fs\/inotify|vm\/max_map_count|net\/ipv4\/(ip_unpriv|ping))/,
    "as container engines and distributions set it: editors, search engines, servers and ping need it",
  ],
  [/^\/proc\/sys can be written/, "it is the machine's own kernel"],
  [/^\/proc\/sys /, "the kernels are not the same: a container has the host's, with the host's settings"],
  [/^\/proc and \/sys processes/, "the agent and the kernel's own are in sight"],
  [/^\/proc and \/sys /, "hidden from containers, whose kernel is the host's"],
  [/^names /, "engines write these files too; `runc` alone does not"],
  [/^may make a file without a name/, "an overlay has it from Linux 6.3 on; the guest's kernel is the distribution's"],
  [/^may /, "the machine is the wall, so root is root"],
];

const kernelOfHost = release();
const dir = await mkdtemp(join(tmpdir(), "compare-"));
try {
  const [sandbox, container] = [await inSandbox(), await inContainer(dir)];
  const text = documentOf(sandbox, container);
  if (!process.argv.includes("--check")) await writeFile(DOCUMENT, text);
} finally {
  await rm(dir, { recursive: true, force: true });
}

async function inSandbox(): Promise<Rows> {
  await using guest = await startGuest({ image: IMAGE, memoryMiB: 512 });
  const { config } = await createImages(dataPaths()).resolve(IMAGE);
  const env = Object.fromEntries(config.env.map((entry) => [entry.split("=", 1)[0], entry.replace(/^[^=]*=/, "")]));
  await guest.agent.identify({ ...testIdentity(), env });
  const { stdout, stderr, exitCode } = await guest.agent.exec({
    argv: ["python3", "-c", PROBE],
    cwd: config.cwd ?? "/",
  });
  if (exitCode !== 0) throw new Error(`in the sandbox: ${stderr}`);
  return JSON.parse(stdout.toString()) as Rows;
}

async function inContainer(bundle: string): Promise<Rows> {
  const { base, config } = await createImages(dataPaths()).resolve(IMAGE);
  await runTool("fsck.erofs", [`--extract=${join(bundle, "rootfs")}`, base], {
    package: "erofs-utils",
    timeoutMs: 300_000,
  });
  await runTool("runc", ["spec"], { cwd: bundle, package: "runc" });
  const file = join(bundle, "config.json");
  const spec = JSON.parse(await readFile(file, "utf8"));
  Object.assign(spec.process, { terminal: false, cwd: config.cwd, args: ["python3", "-c", PROBE] });
  spec.process.env = [...spec.process.env, ...config.env];
  spec.root.readonly = false;
  await writeFile(file, JSON.stringify(spec));
  const args = ["--root", join(bundle, "state"), "run", "--no-pivot", `compare-${process.pid}`];
  return JSON.parse(
    (await runTool("runc", args, { cwd: bundle, package: "runc", timeoutMs: 120_000 })).toString(),
  ) as Rows;
}

function documentOf(sandbox: Rows, container: Rows): string {
  const lines = [
    "# A sandbox beside a container of the same image",
    "",
    "Look up what a program sees of its surroundings in a sandbox, and what in a container of the same image.",
    `What one program read in \`${IMAGE}\`, in a sandbox under QEMU with the distribution's kernel and in the same files under \`runc\` with the`,
    "specification that `runc spec` writes and the image's environment. Made by `node scripts/compare-container.ts`, which fails when a",
    "difference has no reason. What is the same in both is counted only. The sandbox had 512 MiB, the container its host's memory.",
    "",
  ];
  const unknown: string[] = [];
  for (const kind of [...new Set([...Object.keys(sandbox), ...Object.keys(container)])]) {
    const [ours = {}, theirs = {}] = [sandbox[kind], container[kind]];
    const names = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].sort();
    const rows: string[] = [];
    for (const name of names) {
      if (isDeepStrictEqual(ours[name], theirs[name])) continue;
      const reason = REASONS.find(([pattern]) => pattern.test(`${kind} ${name}`))?.[1];
      if (reason === undefined) unknown.push(`${kind} ${name}: ${ours[name]} | ${theirs[name]}`);
      rows.push(`| ${cell(name)} | ${cell(ours[name])} | ${cell(theirs[name])} | ${reason} |`);
    }
    lines.push(
      `## ${kind.replace(/^[a-z]/, (letter) => letter.toUpperCase())}`,
      "",
      `${names.length - rows.length} of ${names.length} are the same.`,
      "",
    );
    if (rows.length > 0) lines.push("| | sandbox | container | why |", "| --- | --- | --- | --- |", ...rows, "");
  }
  if (unknown.length > 0) throw new Error(`no reason is known for\n${unknown.join("\n")}`);
  return `${lines.join("\n").trimEnd()}\n`;
}

/** What this run or this host alone has is no news. */
function cell(value: string | undefined): string {
  if (value === undefined || value === "") return "-";
  if (value === kernelOfHost) return "the host's";
  const plain = value.replace(/commands\/\d+/, "commands/N").replace(/compare-\d+/, "compare");
  return plain.replaceAll("|", "\\|").slice(0, 120);
}
