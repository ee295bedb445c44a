/** What programs expect of a Linux machine beside its files: namespaces, devices, settings, names of hosts, times, sizes, any bytes. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Agent } from "../src/guest/agent.ts";
import { type Guest, shell, startGuest, testIdentity } from "./agent-support.ts";

let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest({ image: "stacyvm/python", memoryMiB: 384 });
  agent = guest.agent;
});

after(() => guest?.[Symbol.asyncDispose]());

async function python(script: string, options: { user?: string } = {}): Promise<string> {
  const result = await agent.exec({ argv: ["python3", "-c", script], ...options });
  assert.equal(result.exitCode, 0, result.stderr.toString());
  return result.stdout.toString().trim();
}

test("user namespaces have a /proc of their own, for root and for others", async () => {
  for (const user of ["root", "1234"]) {
    const argv = ["unshare", "-Urpf", "--mount-proc", "sh", "-c", "echo $$; id -u; ls -d /proc/[0-9]* | wc -l"];
    const { stdout, stderr, exitCode } = await agent.exec({ argv, user, cwd: "/" });
    assert.deepEqual([exitCode, stderr.toString()], [0, ""], user);
    assert.match(stdout.toString(), /^1\n0\n[1-4]\n$/);
  }
  // A file system and a network of programs, as rootless container tools make them.
  assert.equal(
    await python(
      `
import ctypes, fcntl, os, struct
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
assert libc.unshare(0x10000000 | 0x40000000 | 0x00020000) == 0, ctypes.get_errno()
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
open("/proc/self/gid_map", "w").write(f"0 {gid} 1")
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH", b"t0", 1 | 0x1000))
fuse = os.open("/dev/fuse", os.O_RDWR)
os.mkdir("/tmp/fuse")
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
assert libc.mount(b"x", b"/tmp/fuse", b"fuse", 0, options) == 0, ctypes.get_errno()
assert libc.mount(b"t", b"/mnt", b"tmpfs", 0, None) == 0, ctypes.get_errno()
print("made")`,
      { user: "1234" },
    ),
    "made",
  );
});

test("settings are those of container engines; a user may serve port 80", async () => {
  const read = async (name: string) => (await agent.readFile(`/proc/sys/${name}`)).toString().trim();
  assert.equal(await read("net/ipv4/ip_unprivileged_port_start"), "0");
  assert.ok(Number(await read("fs/inotify/max_user_watches")) >= 524_288);
  assert.equal(
    await python("import socket; s = socket.socket(); s.bind(('', 80)); s.listen(); print('bound')", { user: "1234" }),
    "bound",
  );
  const limits = (await agent.readFile("/proc/self/limits")).toString();
  assert.match(limits, /Max open files +65536 +1048576/);
  assert.match(await shell(agent, "bash -c 'ulimit -u'"), /unlimited/);
});

test("its host name and localhost resolve, in both families; what users wrote into /etc/hosts stays", async () => {
  const resolves = async (name: string) => {
    assert.equal(
      await python("import socket; print(socket.gethostname(), socket.gethostbyname(socket.gethostname()))"),
      `${name} 127.0.1.1`,
    );
    assert.match(await shell(agent, "getent hosts $(hostname)"), /^127\.0\.1\.1\s/);
  };
  await resolves("sb-test");
  await shell(agent, "echo '10.1.2.3 mine' >> /etc/hosts");
  await agent.identify(testIdentity({ hostname: "another-name", sandboxId: "another" }));
  await resolves("another-name");
  const hosts = (await agent.readFile("/etc/hosts")).toString();
  assert.match(hosts, /^10\.1\.2\.3 mine$/m);
  assert.doesNotMatch(hosts, /sb-test/);
  assert.equal(
    await python(`
import socket
for family, address in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
    server = socket.socket(family); server.bind((address, 0)); server.listen()
    assert any(info[4][0] == address for info in socket.getaddrinfo("localhost", 1, family)), address
    socket.create_connection(("localhost", server.getsockname()[1]), 5).close() if family == socket.AF_INET else socket.socket(family).connect(server.getsockname())
print("both")`),
    "both",
  );
});

test("a command may make groups with controllers in its own, and the next ones run all the same", async () => {
  const script = `set -e
g=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p $g/a/b; echo $$ > $g/a/b/cgroup.procs
for c in pids memory cpu; do echo +$c > $g/cgroup.subtree_control; echo +$c > $g/a/cgroup.subtree_control; done
echo 50M > $g/a/b/memory.max; cat $g/a/b/memory.max`;
  for (let round = 0; round < 3; round++) assert.equal(await shell(agent, script), "52428800\n");
  // One that stays leaves its part to itself.
  await shell(agent, `${script}; sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/stays`);
  assert.equal(await shell(agent, script), "52428800\n");
  await shell(agent, "kill -9 $(cat /tmp/stays)");
});

test("the boot id is the identity's, and a whole procfs is in sight", async () => {
  const identity = testIdentity();
  await agent.identify(identity);
  assert.equal((await agent.readFile("/proc/sys/kernel/random/boot_id")).toString().trim(), identity.bootId);
});

test("programs that make their own environment learn the network from PAM", async () => {
  await agent.identify(testIdentity({ env: { HTTPS_PROXY: "http://127.0.0.1:1", no_proxy: "localhost", OTHER: "x" } }));
  assert.match(
    await shell(agent, "su - root -c 'echo $HTTPS_PROXY $no_proxy $OTHER'"),
    /^http:\/\/127\.0\.0\.1:1 localhost\s*\n$/,
  );
  await agent.identify(testIdentity());
  assert.doesNotMatch((await agent.readFile("/etc/security/pam_env.conf")).toString(), /^[a-z]*_proxy/im);
});

test("times before 1970 and after 2262", async () => {
  for (const seconds of [-2_147_483_000, -1, 0, 9_223_372_037, 15_032_385_000]) {
    await python(
      `import os; open("/tmp/t", "w").close(); os.utime("/tmp/t", ns=(${seconds} * 10**9 + 250_000_000,) * 2)`,
    );
    assert.equal((await agent.stat("/tmp/t")).mtimeMs, seconds * 1000 + 250);
  }
  await shell(
    agent,
    "mkdir -p /times; touch -d '1955-11-05 06:00:00.5 UTC' /times/old; touch -d '2300-01-01 UTC' /times/new",
  );
  const times = async (dir: string) => (await agent.list(dir)).map((file) => Math.floor(file.mtimeMs / 1000)).sort();
  const wanted = await times("/times");
  await agent.tarIn("/times-too", await agent.tarOut("/times"));
  assert.deepEqual(await times("/times-too"), wanted);
});

test("arguments and environment as long as Linux takes them; more is too large, and no reason to try again", async () => {
  const long = "x".repeat(131_000);
  const size = async (options: { argv: string[]; env?: Record<string, string>; stdin?: Buffer }) =>
    (await agent.exec(options)).stdout.toString().trim();
  assert.equal(await size({ argv: ["python3", "-c", `# ${long}\nprint("ran")`] }), "ran");
  const many = Array.from({ length: 14 }, () => long);
  assert.equal(
    await size({ argv: ["python3", "-c", "import sys; print(sum(map(len, sys.argv[1:])))", ...many] }),
    String(14 * 131_000),
  );
  const short = Array.from({ length: 100_000 }, () => "y");
  assert.equal(await size({ argv: ["python3", "-c", "import sys; print(len(sys.argv) - 1)", ...short] }), "100000");
  const script = "import os, sys; print(len(os.environ['LONG']), len(sys.stdin.read()))";
  const stdin = Buffer.alloc(400_000, "z");
  assert.equal(await size({ argv: ["python3", "-c", script], env: { LONG: long }, stdin }), "131000 400000");
  for (const argv of [
    ["true", "x".repeat(140_000)],
    ["true", ...Array.from({ length: 20 }, () => long)],
    ["true", "x".repeat(5 << 20)],
  ])
    await assert.rejects(agent.exec({ argv }), { code: "too-large" });
  await agent.ping();
});

test("an environment of any size for all commands", async () => {
  await agent.close();
  agent = await guest.connect(
    testIdentity({ env: { A: "a".repeat(100_000), B: "b".repeat(100_000) }, hostname: "large" }),
  );
  assert.equal(
    await python("import os, socket; print(len(os.environ['A'] + os.environ['B']), socket.gethostname())"),
    "200000 large",
  );
  await agent.identify(testIdentity());
});

test("names of any bytes: listed, found, read, written, watched, moved and removed", async () => {
  await python(
    "import os; os.makedirs(b'/bytes'); open(b'/bytes/caf\\xe9\\xff', 'w').write('content'); os.symlink(b'\\xfe', b'/bytes/link')",
  );
  const path = "/bytes/caf\udce9\udcff";
  const list = await agent.list("/bytes");
  assert.deepEqual(list.map((file) => file.path).sort(), [path, "/bytes/link"].sort());
  assert.equal(list.find((file) => file.kind === "symlink")?.target, "\udcfe");
  assert.equal((await agent.readFile(path)).toString(), "content");
  assert.deepEqual(await agent.glob("/bytes/caf*"), [path]);
  const abort = new AbortController();
  const changes = agent.watch("/bytes", { signal: abort.signal })[Symbol.asyncIterator]();
  const first = changes.next();
  let seen: string | undefined;
  void first.then(({ value }) => {
    seen = value?.path;
  });
  // The watch begins when it does.
  while (seen === undefined) await agent.writeFile(`${path}\udc80new`, Buffer.from("more"));
  assert.equal(seen, `${path}\udc80new`);
  abort.abort();
  await agent.move(path, `${path}.moved`);
  const { stdout } = await agent.exec({
    argv: [
      "python3",
      "-c",
      "import os, sys; print(os.fsencode(sys.argv[1]), os.path.exists(sys.argv[1]))",
      `${path}.moved`,
    ],
  });
  assert.equal(stdout.toString().trim(), "b'/bytes/caf\\xe9\\xff.moved' True");
  await agent.remove(`${path}.moved`);
  await agent.remove(`${path}\udc80new`);
  assert.deepEqual((await agent.list("/bytes")).length, 1);
});

test("idleness can ask: a command that runs counts, and what it has left behind", async () => {
  const before = (await agent.info()).commands;
  const running = await agent.start({ argv: ["sleep", "1000"] });
  assert.equal((await agent.info()).commands, before + 1);
  await running.kill(9);
  await running.exited;
  await agent.exec({ argv: ["/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/left"] });
  assert.equal((await agent.info()).commands, before + 1);
  await shell(agent, "kill -9 $(cat /tmp/left); while kill -0 $(cat /tmp/left) 2>/dev/null; do :; done");
  assert.equal((await agent.info()).commands, before);
});

test("30 MB of output are collected", async () => {
  const begun = performance.now();
  const { stdout } = await agent.exec({ argv: ["/bin/sh", "-c", "yes 'a line of output' | head -c 30000000"] });
  assert.equal(stdout.length, 30_000_000);
  process.stdout.write(`# 30 MB in ${Math.round(performance.now() - begun)} ms\n`);
});
