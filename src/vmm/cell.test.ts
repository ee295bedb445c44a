/** The programs in cell/, as root and as another user, without a machine. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { replaceFs } from "../../test/replace-fs.ts";
import { type Cell, cellState, inCell, opensForOthers } from "./cell.ts";

const execute = promisify(execFile);
const NOBODY = 65_534;
const state = await cellState();
const isRoot = process.getuid?.() === 0;
const USERS = isRoot ? [0, NOBODY] : [process.getuid?.() ?? NOBODY];

test("a /dev/kvm that only root may open is none for a user of the machine's own", () => {
  for (const mode of [0o20666, 0o20660]) assert.equal(opensForOthers(mode), true);
  for (const mode of [0o20600, 0o20640, 0o20644]) assert.equal(opensForOthers(mode), false);
});

test("root that could not find its machines again makes no other users", { skip: !isRoot }, async () => {
  const url = new URL("./cell.ts", import.meta.url).href;
  const script = `console.log((await (await import("${url}")).cellState()).reason)`;
  const args = ["--bounding-set=-sys_ptrace", process.execPath, "--input-type=module", "-e", script];
  assert.match((await execute("setpriv", args)).stdout, /root without CAP_SYS_PTRACE/);
});

describe("a cell", { skip: state.usable ? false : `no cell on this host: ${state.reason}` }, () => {
  const { cell } = state as { cell: Cell };

  for (const user of USERS) {
    const title = user === 0 ? "as root, another user each" : `as uid ${user}, in a user namespace`;
    test(`${title}: only what is named exists, and only what is to be written can be`, async () => {
      const dir = await mkdtemp(join(tmpdir(), "cell-"));
      const own = join(dir, "own");
      const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
      try {
        for (const name of ["own", "own/run", "read"]) await mkdir(join(dir, name));
        for (const name of ["own/disk", "own/record", "read/it", "read/not"]) await writeFile(join(dir, name), name);
        // The programs lie where the checkout is, which may be closed to others.
        const near = { program: join(dir, basename(cell.program)), preload: join(dir, basename(cell.preload)) };
        for (const part of ["program", "preload"] as const) await copyFile(cell[part], near[part]);
        if (isRoot)
          for (const name of ["", ...(await readdir(dir, { recursive: true }))])
            await chown(join(dir, name), user, user);
        await chmod(own, 0o711);
        const files = { dir: own, read: [join(dir, "read/it")], write: [join(own, "run"), join(own, "disk")] };
        const be = user === 0 || !isRoot ? [] : ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"];
        const say = async (script: string): Promise<string> => {
          const [command = "", ...args] = [...be, near.program, ...inCell(near, files, "/bin/bash", ["-c", script])];
          const { stdout } = await execute(command, args, { env: { PATH: "/usr/bin:/bin" }, cwd: "/" });
          return stdout.trim();
        };
        const cannot = async (script: string): Promise<void> =>
          assert.equal(await say(`(${script}) 2>/dev/null && echo could || echo cannot`), "cannot", script);

        assert.match(await say("id -u"), user === 0 ? /^18[78]\d{7}$/ : new RegExp(`^${user}$`));
        assert.equal(await say("pwd"), own);
        assert.equal(await say(`cat ${dir}/read/it`), "read/it");
        for (const path of ["/proc", "/root", "/home", "/var", `${dir}/read/not`]) await cannot(`test -e ${path}`);
        const there = new Set((await say("ls /")).split("\n"));
        for (const name of ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "dev", "sys", "tmp"])
          there.delete(name);
        assert.deepEqual([...there], []);
        for (const name of ["record", "new", "/usr/new", "/new", `${dir}/read/it`]) await cannot(`echo x > ${name}`);
        for (const act of ["rm -f record", "mv run away", "ln -s /etc/passwd console", "ln -sf x disk"])
          await cannot(act);
        await cannot(`exec 3<>/dev/tcp/127.0.0.1/${(server.address() as { port: number }).port}`);
        await say("echo written > disk; echo made > run/made");
        assert.equal(await readFile(join(own, "disk"), "utf8"), "written\n");
        assert.equal(await readFile(join(own, "run/made"), "utf8"), "made\n");
        if (user !== 0) return;
        assert.equal((await stat(join(own, "record"))).uid, 0, "the record stays ours");
        await chmod(join(dir, "read/it"), 0o400);
        assert.equal(await say(`cat ${dir}/read/it`), "read/it");
        assert.equal((await stat(join(dir, "read/it"))).mode & 0o777, 0o400);
        const users = await Promise.all([say("id -u"), say("id -u"), say("id -u")]);
        assert.equal(new Set(users).size, 3);
      } finally {
        server.close();
        await rm(dir, { recursive: true });
      }
    });
  }

  test("a program changes no other process of its user by its number: no limits, priorities or processors", async (t) => {
    const others = spawn("/bin/sleep", ["600"], { stdio: "ignore", ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}) });
    t.after(() => others.kill("SIGKILL"));
    await once(others, "spawn");
    const { pid = 0 } = others;
    const dir = await mkdtemp(join(tmpdir(), "cell-"));
    t.after(() => rm(dir, { recursive: true }));
    await chmod(dir, 0o755);
    const near = join(dir, basename(cell.program));
    await copyFile(cell.program, near);
    const be = isRoot ? ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"] : [];
    const inside = inCell({ program: near, preload: cell.preload }, { dir, read: [], write: [] }, "/bin/bash", ["-c"]);
    const tried = async (script: string, confined: boolean): Promise<boolean> => {
      const command = [...be, ...(confined ? [near, ...inside.slice(0, -1), "-c"] : ["/bin/bash", "-c"]), script];
      const [file = "", ...args] = command;
      return execute(file, args, { env: { PATH: "/usr/bin:/bin:/usr/sbin" }, cwd: "/" }).then(
        () => true,
        (error: { code?: number; stderr?: string }) => {
          assert.match(error.stderr ?? "", /not permitted/, script);
          return false;
        },
      );
    };
    for (const act of [
      `prlimit --pid ${pid} --nofile=64:64`,
      `prlimit --pid ${pid} --cpu=1000:1000`,
      `ionice -c 3 -p ${pid}`,
      `renice -n 19 -p ${pid}`,
      `taskset -p 1 ${pid}`,
      `chrt --batch -p 0 ${pid}`,
    ]) {
      assert.equal(await tried(act, true), false, act);
      assert.equal(await tried(act, false), true, `${act}, outside`);
    }
    for (const own of ["ulimit -n 32", "prlimit --pid $$ --cpu=1000:1000", "taskset -p 1 $$"]) {
      assert.equal(await tried(own, true), true, own);
    }
  });

  test("paths with spaces and colons; what only root may read below the directory", async () => {
    const dir = await mkdtemp(join(tmpdir(), "a cell: its "));
    try {
      const [own, near] = [join(dir, "own one"), { ...cell, preload: join(dir, basename(cell.preload)) }];
      await mkdir(join(own, "saved"), { recursive: true });
      await copyFile(cell.preload, near.preload);
      await writeFile(join(own, "saved/state"), "state", { mode: 0o400 });
      await writeFile(join(dir, "memory.bin"), "kept\n");
      await chmod(join(dir, "memory.bin"), 0o444);
      for (const each of [dir, own, join(own, "saved")]) await chmod(each, 0o755);
      const files = { dir: own, read: [join(own, "saved/state"), join(dir, "memory.bin")], write: [], clones: true };
      const script = 'cat saved/state; exec 3<>"$1/memory.bin"; read line <&3; echo " $line"';
      const args = inCell(near, files, "/bin/bash", ["-c", script, "bash", dir]);
      const { stdout, stderr } = await execute(near.program, args, { env: { PATH: "/usr/bin:/bin" } });
      assert.deepEqual([stdout, stderr], ["state kept\n", ""]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test("of a program of the user's own, its libraries and firmware, and nothing else that lies about it", async () => {
    const home = await mkdtemp(join(tmpdir(), "home-"));
    try {
      for (const name of ["bin", "own", "lib", "share/qemu", "share/others"])
        await mkdir(join(home, name), { recursive: true });
      for (const name of ["lib/it", "share/qemu/rom", "share/others/secret", "bin/secret", "secret"])
        await writeFile(join(home, name), "");
      const program = join(home, "bin/bash");
      await copyFile("/bin/bash", program);
      for (const name of ["", "bin", "own"]) await chmod(join(home, name), 0o755);
      const preload = join(home, basename(cell.preload));
      const args = inCell({ ...cell, preload }, { dir: join(home, "own"), read: [], write: [] }, program, [
        "-c",
        'shopt -s globstar; cd "$1"; echo **',
        "bash",
        home,
      ]);
      const { stdout } = await execute(cell.program, args, { env: { PATH: "/usr/bin:/bin" } });
      const there = stdout.trim().split(" ").sort();
      assert.deepEqual(there, ["bin", "bin/bash", "lib", "lib/it", "own", "share", "share/qemu", "share/qemu/rom"]);
    } finally {
      await rm(home, { recursive: true });
    }
  });

  test("a host that was short of something is no verdict: nothing starts without a cell for it, and the next one has it", async (t) => {
    const restore = replaceFs(t, "readFile", async () => {
      throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
    });
    // One that has not looked yet.
    const fresh = (await import(`${new URL("./cell.ts", import.meta.url).href}?fresh`)) as typeof import("./cell.ts");
    await assert.rejects(fresh.cellState(), { code: "unavailable", message: /not known: .*EMFILE/ });
    restore();
    assert.deepEqual(await fresh.cellState(), state);
  });

  test("a trial makes no directory, which would stay behind where the server is killed meanwhile", async (t) => {
    const made: string[] = [];
    const restore = ["mkdtemp", "mkdir"].map((name) =>
      replaceFs(t, name as "mkdir", async (path: string) => {
        made.push(path);
        throw new Error("nothing is to be made");
      }),
    );
    const fresh = (await import(`${new URL("./cell.ts", import.meta.url).href}?kept`)) as typeof import("./cell.ts");
    assert.deepEqual(await fresh.cellState(), state);
    for (const each of restore) each();
    assert.deepEqual(made, []);
  });

  test("nothing of a server is made where nobody sweeps: in the system's temporary directory", async () => {
    const source = new URL("../", import.meta.url);
    const names = (await readdir(source, { recursive: true })).filter((name) => /(?<!\.test)\.ts$/.test(name));
    assert.ok(names.length > 300, String(names.length));
    for (const name of names) assert.doesNotMatch(await readFile(new URL(name, source), "utf8"), /\btmpdir\b/, name);
  });

  test("bounded files: none grows beyond the bound or is made, sockets are, and a write too many ends nobody", async () => {
    const dir = await mkdtemp(join(tmpdir(), "cell-"));
    try {
      await chmod(dir, 0o755);
      await mkdir(join(dir, "run"));
      await writeFile(join(dir, "disk"), "");
      const write = [join(dir, "run"), join(dir, "disk")];
      const say = async (script: string, fileBytes?: number): Promise<string> => {
        const files = { dir, read: [], write, ...(fileBytes === undefined ? {} : { fileBytes }) };
        const args = inCell(cell, files, "/usr/bin/perl", ["-e", script]);
        return (await execute(cell.program, args, { env: { PATH: "/usr/bin:/bin" } })).stdout;
      };
      const fill = `open(D, "+<", "disk"); my $n = 0; while ($n < 9e6) { my $w = syswrite(D, "x" x 65536); last unless $w; $n += $w } print "$n $!"`;
      assert.equal(await say(fill, 1_000_000), "1000000 File too large");
      assert.equal((await stat(join(dir, "disk"))).size, 1_000_000);
      const make = (what: string): string => `print((${what}) ? "made" : "$!")`;
      const landlock = (await execute("/usr/bin/perl", ["-e", "print syscall(444, 0, 0, 1)"])).stdout !== "-1";
      const bind = `use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); ${make("bind(S, pack_sockaddr_un('run/s'))")}`;
      for (const what of ['open(F, ">", "run/new")', 'mkdir("run/dir")', 'symlink("x", "run/link")']) {
        if (landlock) assert.equal(await say(make(what), 1_000_000), "Permission denied", what);
        assert.equal(await say(make(what)), "made", what);
      }
      assert.equal(await say(bind, 1_000_000), "made");
      for (const wrong of ["0", "x", "1x"]) {
        const args = [dir, "-f", wrong, "--", "/usr/bin/env", "true"];
        await assert.rejects(execute(cell.program, args), /cell: bound files to/, wrong);
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test("a relative path is refused, and nothing is made on the host", async () => {
    const args = ["relative", "-s", "/usr", "--", "/usr/bin/env", "true"];
    await assert.rejects(execute(cell.program, args, { cwd: "/" }), /cell: add relative: Invalid argument/);
    await assert.rejects(stat("/tmprelative"), /ENOENT/);
  });

  test("another name is for the file right before it, which must be one that can have it", async () => {
    const dir = await mkdtemp(join(tmpdir(), "cell-"));
    try {
      await chmod(dir, 0o755);
      for (const name of ["a", "b"]) await writeFile(join(dir, name), name);
      const system = ["/usr", "/bin", "/lib", "/lib64"].flatMap((path) => ["-s", path]);
      const run = async (...args: string[]): Promise<string> => {
        const command = ["--", "/usr/bin/env", "cat", "/named"];
        return (await execute(cell.program, [dir, ...args, ...command], { env: { PATH: "/usr/bin:/bin" } })).stdout;
      };
      const [a, b] = [join(dir, "a"), join(dir, "b")];
      assert.equal(await run(...system, "-r", b, "-r", a, "-a", "/named"), "a");
      // One that need not be there is not, and the one before it keeps its name.
      await assert.rejects(run(...system, "-r", a, "-o", join(dir, "none"), "-a", "/named"), /No such file/);
      for (const before of [[], ["-r", a, "-s", "/lib"], ["-r", a, "-s", "/usr"], ["-r", a, "-l", cell.preload]])
        await assert.rejects(run(...before, "-a", "/named"), /cell: name \/named: Invalid argument/, before.join(" "));
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test("a snapshot's memory is opened for reading, whatever the program asks for", async () => {
    const dir = await mkdtemp(join(tmpdir(), "memory-"));
    try {
      const path = join(dir, "memory.bin");
      const write = async (env: Record<string, string>): Promise<string> => {
        await writeFile(path, "kept\n");
        await execute("/bin/sh", ["-c", `exec 3<>${path}; read line <&3; echo lost >&3`], { env }).catch(() => {});
        return readFile(path, "utf8");
      };
      assert.equal(await write({}), "kept\nlost\n", "without it");
      assert.equal(await write({ LD_PRELOAD: cell.preload }), "kept\n");
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
