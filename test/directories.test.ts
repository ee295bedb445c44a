/** Directories of the host in real machines: what both sides see, who may have them, and what lives through what. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { isRoot } from "../src/host/is-root.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { servers } from "./directory-support.ts";
import { Server } from "./server-support.ts";

describe("directories of the host under QEMU", () => {
  let server: Server;
  let outside: string;
  let dir: string;
  let id: string;
  before(async () => {
    outside = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "directories-"));
    dir = join(outside, "project");
    await mkdir(dir);
    await writeFile(join(outside, "secret"), "canary");
    server = await Server.create(
      `mounts: { allow: [${JSON.stringify(dir)}], answer_timeout: 20s }\nproviders: { default: qemu }\n`,
    );
    id = await spawn([{ source: dir, target: "/work" }]);
  });
  after(async () => {
    await server?.[Symbol.asyncDispose]();
    await rm(outside, { recursive: true, force: true });
  });

  const spawn = async (mounts: object[], more: object = {}): Promise<string> =>
    (await server.ok("POST", "/sandboxes", { image: "stacyvm/busybox", mounts, ...more })).id;
  const run = (command: string, sandbox = id): Promise<{ exit_code: number; stdout: string; stderr: string }> =>
    server.ok("POST", `/sandboxes/${sandbox}/exec`, { command, timeout: "60s" });
  const sh = async (command: string, sandbox = id): Promise<string> => {
    const { exit_code, stdout, stderr } = await run(command, sandbox);
    assert.equal(exit_code, 0, `${command}: ${stderr}`);
    return stdout.trim();
  };

  test("both sides see at once what the other writes", async () => {
    await writeFile(join(dir, "host"), "from the host");
    assert.equal(await sh("cat /work/host"), "from the host");
    await writeFile(join(dir, "host"), "changed, and longer");
    assert.equal(await sh("cat /work/host"), "changed, and longer");
    await rm(join(dir, "host"));
    assert.notEqual((await run("cat /work/host")).exit_code, 0);
    // A name that was looked up in vain, and a file that is open and read already.
    await writeFile(join(dir, "host"), "made again");
    assert.equal(await sh("cat /work/host"), "made again");
    await sh(
      "mkfifo /tmp/come; (exec 3</work/host; cat <&3; echo > /tmp/come; while ! cat <&3 | grep longer; do sleep 0.05; done) > /tmp/read 2>&1 &",
    );
    await sh("cat /tmp/come");
    await appendFile(join(dir, "host"), ", and longer");
    await sh("while ! grep -q longer /tmp/read; do sleep 0.1; done");
    await rm(join(dir, "host"));
    await sh("mkdir -p /work/a/b && printf 'from the guest' > /work/a/b/file && chmod 640 /work/a/b/file");
    assert.equal(await readFile(join(dir, "a/b/file"), "utf8"), "from the guest");
    assert.equal((await stat(join(dir, "a/b/file"))).mode & 0o7777, 0o640);
    assert.equal(await sh("stat -c %u:%g /work/a/b/file"), "0:0");
  });

  test("programs run from it, rename in it and work in it", async () => {
    await sh("cp /bin/busybox /work/busybox && chmod 755 /work/busybox && cd /work && ./busybox echo ran");
    assert.equal(await sh("/work/busybox sh -c 'cd /work/a && pwd'"), "/work/a");
    const inside = await server.ok("POST", `/sandboxes/${id}/exec`, { command: "pwd", workdir: "/work/a" });
    assert.equal(inside.stdout.trim(), "/work/a");
    await sh("cd /work && mv a c && ln c/b/file hard && ln -s c/b/file soft && cat soft && rm hard");
    assert.deepEqual(await readdir(join(dir, "c/b")), ["file"]);
    await sh("cd /work && dd if=/dev/urandom of=big bs=1M count=20 2>/dev/null");
    const sum = createHash("sha256")
      .update(await readFile(join(dir, "big")))
      .digest("hex");
    assert.equal((await sh("sha256sum /work/big")).split(" ")[0], sum);
    await sh("rm -r /work/c /work/big /work/soft && mkdir /work/many && cd /work/many && seq 1 300 | xargs touch");
    assert.equal((await readdir(join(dir, "many"))).length, 300);
    assert.equal(await sh("ls /work/many | wc -l; rm -r /work/many"), "300");
  });

  test("files are read and written there by calls as well", async () => {
    const at = `/sandboxes/${id}/files`;
    await server.ok("POST", at, { path: "/work/by-call", content: "through the agent" });
    assert.equal(await readFile(join(dir, "by-call"), "utf8"), "through the agent");
    assert.equal(await sh("cat /work/by-call"), "through the agent");
  });

  test("a listing asks the host for many files at once, and who opens one of them sees what is there by then", async () => {
    const listed = join(dir, "listed");
    await mkdir(listed);
    for (let i = 0; i < 1000; i++) await writeFile(join(listed, `file-${i}`), "short");
    await sh("ls /work");
    const [helper] = await helpers();
    const before = await waits(helper);
    assert.equal(await sh("ls -l /work/listed | grep -c ' 5 .* file-'"), "1000");
    const asked = (await waits(helper)) - before;
    assert.ok(asked < 500, `the host was asked ${asked} times for 1000 files`);
    await rm(listed, { recursive: true });

    // Somebody else changes it right after it was listed.
    const twice = await spawn([
      { source: dir, target: "/work" },
      { source: dir, target: "/other" },
    ]);
    await sh(
      "mkdir /other/two && cd /other/two && printf short > grown && printf short > replaced && printf other > new",
      twice,
    );
    const seen = await sh(
      "ls -l /work/two >/dev/null; printf ' and longer' >> /other/two/grown; cat /work/two/grown; ls -l /work/two > /dev/null; mv /other/two/new /other/two/replaced; cat /work/two/replaced; rm -r /other/two",
      twice,
    );
    assert.equal(seen, "short and longerother");
    await server.ok("DELETE", `/sandboxes/${twice}`);
  });

  test("inotify tells of what the host changes, where it may be written and where not, of nothing twice, and changes nothing", async () => {
    const watched = join(dir, "watched");
    await mkdir(join(watched, "deep"), { recursive: true });
    for (const name of ["old", "replaced", "deep/file"]) await writeFile(join(watched, name), "short");
    const reader = await spawn([{ source: dir, target: "/work", read_only: true }]);
    const source = join(packageRoot, "test/guest-programs/watch.c");
    await runTool("gcc", ["-static", "-O1", "-o", join(dir, "watch"), source]);
    for (const each of [id, reader]) {
      const paths = "/work/watched /work/watched/deep /work/watched/old";
      await sh(`/work/watch ${paths} >> /tmp/events 2>&1 & until grep -qs ready /tmp/events; do sleep 0.1; done`, each);
    }
    await writeFile(join(watched, "new"), "from the host");
    await appendFile(join(watched, "old"), ", and longer");
    await writeFile(join(watched, "replacing"), "another");
    await rename(join(watched, "replacing"), join(watched, "replaced"));
    await mkdir(join(watched, "sub"));
    await symlink("new", join(watched, "link"));
    const before = await stat(join(watched, "old"), { bigint: true });
    const until = (line: string, each: string): Promise<string> =>
      sh(
        `for i in $(seq 300); do grep -qx '${line}' /tmp/events && exit; sleep 0.1; done; cat /tmp/events >&2; exit 1`,
        each,
      );
    for (const each of [id, reader]) {
      for (const line of ["n /work/watched new", "c /work/watched old", "c /work/watched/old"]) await until(line, each);
      for (const line of ["n /work/watched sub", "n /work/watched link", "c /work/watched replaced"])
        await until(line, each);
      assert.equal(
        await sh("cd /work/watched && cat new old replaced link", each),
        "from the hostshort, and longeranotherfrom the host",
      );
      assert.match(await sh("ls -l /work/watched", each), /^drwx.* sub$/m);
    }
    await rm(join(watched, "new"));
    await rm(join(watched, "sub"), { recursive: true });
    await writeFile(join(watched, "deep/file"), "longer than before");
    for (const each of [id, reader]) {
      for (const line of ["d /work/watched new", "d /work/watched sub", "c /work/watched/deep file"])
        await until(line, each);
    }
    // One that has another name now, while a program is in it, lives on, and so does one that the guest has made anew.
    for (const name of ["aa", "gone"]) await mkdir(join(watched, name));
    await until("n /work/watched gone", id);
    await sh("cd /work/watched/aa && (sleep 1000 & echo $! > /tmp/sleeper) >/dev/null 2>&1; ls /work/watched/aa");
    await rename(join(watched, "aa"), join(watched, "bb"));
    await rm(join(watched, "gone"), { recursive: true });
    await sh(
      "mkdir /work/watched/gone; cd /work/watched/gone && (sleep 1000 & echo $! >> /tmp/sleeper) >/dev/null 2>&1",
    );
    await until("n /work/watched bb", id);
    await until("d /work/watched aa", id);
    await sh("cd /work/watched/bb && echo in > it && cat it && cd ../gone && echo in > it && cat it");
    for (const name of ["bb", "gone"]) {
      assert.match(
        await sh(`for p in $(cat /tmp/sleeper); do readlink /proc/$p/cwd; done`),
        new RegExp(`/${name}$`, "m"),
      );
      assert.equal(await readFile(join(watched, name, "it"), "utf8"), "in\n");
    }
    await sh("kill $(cat /tmp/sleeper)");
    for (const name of ["bb", "gone"]) await rm(join(watched, name), { recursive: true });
    // Somebody in the guest has looked, and believes in it, before it is told there.
    for (let round = 0; round < 3; round++) {
      const names = ["file", "dir", "link"].map((kind) => `polled-${kind}-${round}`);
      const paths = names.map((name) => `/work/watched/${name}`);
      await sh(
        `rm -f /tmp/seen; { for p in ${paths.join(" ")}; do (until [ -e $p -o -L $p ]; do sleep 0.01; done; echo $p >> /tmp/seen) & done; } > /dev/null 2>&1`,
      );
      const [file = "", directory = "", soft = ""] = names.map((name) => join(watched, name));
      await Promise.all([writeFile(file, "polled"), mkdir(directory), symlink("polled", soft)]);
      await sh(`until [ "$(wc -l < /tmp/seen)" = 3 ]; do sleep 0.05; done`);
      for (const name of names) await until(`n /work/watched ${name}`, id);
      assert.equal(await sh(`cat ${paths[0]}; echo in > ${paths[1]}/in; readlink ${paths[2]}`), "polledpolled");
      assert.equal(await readFile(join(directory, "in"), "utf8"), "in\n");
      for (const name of names) await rm(join(watched, name), { recursive: true });
    }
    // Its own changes are the kernel's to tell, once.
    await sh("cd /work/watched && : > /tmp/events; echo own > own; echo more >> own; mv own mine; rm mine");
    await writeFile(join(watched, "last"), "");
    await until("n /work/watched last", id);
    const own = (await sh("grep -w 'own\\|mine' /tmp/events"))
      .split("\n")
      .map((line) => line[0])
      .join("");
    assert.equal(own, "ncwcwymd");
    // What happened in between is not known one by one.
    await sh(": > /tmp/events");
    await server.ok("POST", `/sandboxes/${id}/suspend`);
    await writeFile(join(watched, "deep/asleep"), "");
    await server.ok("POST", `/sandboxes/${id}/resume`);
    await until("c /work/watched/deep", id);
    const { mtimeNs, ctimeNs } = await stat(join(watched, "old"), { bigint: true });
    assert.deepEqual([mtimeNs, ctimeNs], [before.mtimeNs, before.ctimeNs]);
    assert.deepEqual((await readdir(watched)).sort(), ["deep", "last", "link", "old", "replaced"]);
    await sh("killall watch");
    await server.ok("DELETE", `/sandboxes/${reader}`);
    await rm(watched, { recursive: true });
  });

  test("links out of it lead nowhere outside, and devices do not come about", async () => {
    await symlink("../secret", join(dir, "relative"));
    await symlink(join(outside, "secret"), join(dir, "absolute"));
    for (const name of ["relative", "absolute", "../secret"])
      assert.notEqual((await run(`cat /work/${name}`)).exit_code, 0, name);
    assert.notEqual((await run("mknod /work/device c 1 3")).exit_code, 0);
    assert.notEqual((await run("mkfifo /work/pipe")).exit_code, 0);
    assert.equal(await readFile(join(outside, "secret"), "utf8"), "canary");
  });

  test("what was open goes on after the server was killed, after a suspend, and after its helper was killed", async () => {
    await sh(
      "(exec 3>>/work/log; while true; do echo line >&3 || echo failed >> /tmp/failed; sleep 0.2; done) >/dev/null 2>&1 &",
    );
    const grows = async (): Promise<void> => {
      const before = (await readFile(join(dir, "log"), "utf8").catch(() => "")).length;
      while ((await readFile(join(dir, "log"), "utf8").catch(() => "")).length < before + 15)
        await new Promise((resolve) => setTimeout(resolve, 100));
    };
    await grows();
    await server.stop("SIGKILL");
    await server.start();
    await grows();
    await server.ok("POST", `/sandboxes/${id}/suspend`);
    await server.ok("POST", `/sandboxes/${id}/resume`);
    await grows();
    for (const pid of await helpers()) process.kill(pid, "SIGKILL");
    await grows();
    assert.equal(await sh("cat /tmp/failed 2>/dev/null | wc -l"), "0");
  });

  test("a helper that hangs keeps nothing from being paused, suspended and ended, and a fork is an error", async () => {
    await writeFile(join(dir, "host"), "for the one that hangs");
    const others = await helpers();
    const hung = await spawn([{ source: dir, target: "/work" }]);
    const hang = async (): Promise<void> => {
      // Somebody answers.
      await sh("cat /work/host", hung);
      const own = (await helpers()).filter((pid) => !others.includes(pid));
      assert.equal(own.length, 1);
      for (const pid of own) process.kill(pid, "SIGSTOP");
      await sh("for i in 1 2; do (cat /work/host; echo more > /work/hung) > /dev/null 2>&1 & done", hung);
      await sh("until grep -qs request_wait_answer /proc/[0-9]*/wchan; do sleep 0.05; done", hung);
    };
    for (const change of ["pause", "suspend"]) {
      await hang();
      await server.ok("POST", `/sandboxes/${hung}/${change}`);
      await server.ok("POST", `/sandboxes/${hung}/resume`);
      // Another helper answers: after a suspend at once, else when this one has been silent for too long.
      await sh("while ! cat /work/host; do sleep 0.1; done", hung);
    }
    await hang();
    // Programs that wait for an answer cannot be frozen; the fork says so, and the sandbox goes on.
    const forked = await server.call("POST", `/sandboxes/${hung}/fork`, {});
    assert.equal(forked.status, 408, JSON.stringify(forked.body));
    assert.match(forked.body.message, /could not be frozen/);
    await server.ok("DELETE", `/sandboxes/${hung}`);
    while ((await helpers()).length > others.length) await new Promise((resolve) => setTimeout(resolve, 50));
  });

  test("a copy reads it, or has nothing of it, as asked", async () => {
    const copies = async (mounts?: string): Promise<string> =>
      (await server.ok("POST", `/sandboxes/${id}/fork`, mounts === undefined ? {} : { mounts })).sandboxes[0].id;
    const reads = await copies();
    await writeFile(join(dir, "host"), "for both");
    assert.equal(await sh("cat /work/host", reads), "for both");
    assert.match((await run("echo no > /work/host", reads)).stderr, /[Rr]ead-only/);
    assert.equal(await readFile(join(dir, "host"), "utf8"), "for both");
    const without = await copies("none");
    assert.notEqual((await run("cat /work/host", without)).exit_code, 0);
    for (const copy of [reads, without]) await server.ok("DELETE", `/sandboxes/${copy}`);
    const saved = await server.call("POST", `/sandboxes/${id}/checkpoints`, {});
    assert.deepEqual([saved.status, saved.body.code], [409, "CONFLICT"]);
  });

  test("a copy that asks for it has a layer of its own: programs go on writing, nothing reaches the host, and it lives as long as the copy", async () => {
    await mkdir(join(dir, "kept/deep"), { recursive: true });
    await writeFile(join(dir, "kept/deep/file"), "of the host");
    await writeFile(join(dir, "kept/open"), "of the host\n");
    // One that works in a directory there and has a file open, as a copied program has.
    await sh(
      "cd /work/kept/deep && (exec 3>>/work/kept/open; until [ -e /tmp/go ]; do sleep 0.1; done; echo open >&3; echo relative > relative; rm file; ls > /tmp/listed) > /dev/null 2>&1 &",
    );
    const fork = async (of: string, mounts: string): Promise<string> =>
      (await server.ok("POST", `/sandboxes/${of}/fork`, { mounts })).sandboxes[0].id;
    const copy = await fork(id, "copy_on_write");
    const { mounts } = await server.ok("GET", `/sandboxes/${copy}`);
    assert.deepEqual(mounts, [{ source: dir, target: "/work", read_only: false, copy_on_write: true }]);
    await sh("touch /tmp/go; until [ -e /tmp/listed ]; do sleep 0.1; done", copy);
    const own = "cat /work/kept/open; ls /work/kept/deep";
    assert.equal(await sh(own, copy), "of the host\nopen\nrelative");
    await writeFile(join(dir, "kept/beside"), "beside");
    assert.equal(await sh("cat /work/kept/beside; mv /work/kept/beside /work/kept/deep/mine", copy), "beside");
    const expected = "of the host\nopen\nmine\nrelative";
    const holds = async (of: string): Promise<void> => assert.equal(await sh(own, of), expected);
    await holds(copy);
    // What it is through, it is after.
    for (const change of ["pause", "suspend"]) {
      await server.ok("POST", `/sandboxes/${copy}/${change}`);
      await server.ok("POST", `/sandboxes/${copy}/resume`);
      await holds(copy);
    }
    await server.stop("SIGKILL");
    await server.start();
    await holds(copy);
    for (const pid of await helpers()) process.kill(pid, "SIGKILL");
    await holds(copy);
    // Its own copies have what it has, and are apart from then on.
    const [second, reader, without] = [
      await fork(copy, "copy_on_write"),
      await fork(copy, "read_only"),
      await fork(copy, "none"),
    ];
    await sh("rm -r /work/kept", copy);
    for (const each of [second, reader]) await holds(each);
    await sh("echo second > /work/kept/deep/mine", second);
    assert.match((await run("echo no > /work/kept/deep/mine", reader)).stderr, /[Rr]ead-only/);
    assert.equal(await sh("cat /work/kept/deep/mine", reader), "beside");
    assert.notEqual((await run("ls /work/kept", without)).exit_code, 0);
    assert.notEqual((await run("ls /work/kept", copy)).exit_code, 0);
    // Of all that the host has nothing, and the original goes on writing to it.
    assert.equal(await readFile(join(dir, "kept/open"), "utf8"), "of the host\n");
    assert.deepEqual((await readdir(join(dir, "kept"), { recursive: true })).sort(), [
      "beside",
      "deep",
      "deep/file",
      "open",
    ]);
    await sh("touch /tmp/go; until [ -e /tmp/listed ]; do sleep 0.1; done");
    assert.equal(await readFile(join(dir, "kept/open"), "utf8"), "of the host\nopen\n");
    for (const each of [copy, second, reader, without]) await server.ok("DELETE", `/sandboxes/${each}`);
    assert.deepEqual(await readdir(join(server.root, "sandboxes")), [id]);
    await rm(join(dir, "kept"), { recursive: true });
  });

  test("what programs have open to write is the copy's own from the fork on: both go on, and neither has a line of the other's", async () => {
    const program = "exec 3>>/work/lines; while i=$((i + 1)) && echo $i >&3; do sleep 0.02; done";
    const pid = await sh(`(${program}) > /dev/null 2>&1 & echo $!`);
    const grown = "n=$(wc -l < /work/lines); until [ $(wc -l < /work/lines) -gt $((n + 20)) ]; do sleep 0.1; done";
    await sh(`until [ -s /work/lines ]; do sleep 0.1; done; ${grown}`);
    const copy = (await server.ok("POST", `/sandboxes/${id}/fork`, { mounts: "copy_on_write" })).sandboxes[0].id;
    for (const each of [id, copy]) await sh(grown, each);
    for (const each of [id, copy]) assert.equal(await sh("awk '$1 != NR' /work/lines | head -n 3", each), "");
    await sh(`kill ${pid}`);
    await server.ok("DELETE", `/sandboxes/${copy}`);
    await rm(join(dir, "lines"));
  });

  test("a disk below it that takes nothing any more is an error of who writes there; what is beside goes on, and so do suspend and the end", {
    skip: isRoot() ? false : "a filesystem is mounted for it: run it as root",
  }, async (t) => {
    const [small, dying] = [join(outside, "small"), join(dir, "dying")];
    for (const place of [small, dying]) await mkdir(place);
    const mounted: string[] = [];
    try {
      // A disk on a file for which there is no more room: its blocks cannot be written.
      await runTool("mount", ["-t", "tmpfs", "-o", "size=8m", "none", small]);
      mounted.push(small);
      const image = join(small, "disk");
      await writeFile(image, "");
      await truncate(image, 64 * 2 ** 20);
      await runTool("mkfs.ext4", ["-q", "-J", "size=1", image], { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } });
      const loop = await runTool("mount", ["-o", "loop", image, dying]).catch((error: unknown) => error as Error);
      if (loop instanceof Error) return t.skip(`no loop devices here: ${loop.message}`);
      mounted.unshift(dying);
      await writeFile(join(dying, "before"), "before");
      await runTool("sync", ["-f", dying]);
      await runTool("dd", ["if=/dev/zero", `of=${join(small, "full")}`, "bs=64k"]).catch(() => {}); // to the last block
      const others = await helpers();
      const both = await spawn([
        { source: dying, target: "/dying" },
        { source: dir, target: "/work" },
      ]);
      const write = "dd if=/dev/urandom of=/dying/big bs=64k count=256 conv=fsync";
      const failed = await run(`for i in 1 2 3; do ${write} || exit 7; done`, both);
      assert.equal(failed.exit_code, 7);
      assert.match(failed.stderr, /I\/O error|[Rr]ead-only|No space left/);
      assert.equal(await sh("cat /dying/before; echo beside > /work/beside; cat /work/beside", both), "beforebeside");
      await server.ok("POST", `/sandboxes/${both}/suspend`);
      await server.ok("POST", `/sandboxes/${both}/resume`);
      assert.equal(await sh("cat /work/beside", both), "beside");
      assert.notEqual((await run(write, both)).exit_code, 0);
      await server.ok("DELETE", `/sandboxes/${both}`);
      while ((await servers(dying)).length > 0 || (await helpers()).length > others.length)
        await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      for (const place of mounted) await runTool("umount", ["-l", place]);
      for (const place of [small, dying]) await rm(place, { recursive: true, force: true });
      await rm(join(dir, "beside"), { force: true });
    }
  });

  test("read-only is read-only, and only what is permitted is given", async () => {
    const reader = await spawn([{ source: dir, target: "/work", read_only: true }]);
    assert.equal(await sh("cat /work/host", reader), "for both");
    assert.notEqual((await run("rm /work/host", reader)).exit_code, 0);
    await server.ok("DELETE", `/sandboxes/${reader}`);
    for (const [source, target, status] of [
      [outside, "/work", 403],
      [join(dir, "../secret"), "/work", 403],
      [join(dir, "missing"), "/work", 403],
      [join(dir, "host"), "/work", 400],
      ["relative", "/work", 400],
      [dir, "/etc/x", 400],
    ] as const) {
      const answer = await server.call("POST", "/sandboxes", {
        image: "stacyvm/busybox",
        mounts: [{ source, target }],
      });
      assert.equal(answer.status, status, `${source} at ${target}: ${JSON.stringify(answer.body)}`);
    }
  });

  test("nothing of it is left when its sandbox is gone", async () => {
    assert.equal((await helpers()).length, 1);
    await server.ok("DELETE", `/sandboxes/${id}`);
    while ((await helpers()).length > 0) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(await readFile(join(dir, "host"), "utf8"), "for both");
  });

  /** How often it has waited for a request. */
  const waits = async (pid: number | undefined): Promise<number> =>
    Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(await readFile(`/proc/${pid}/status`, "latin1"))?.[1]);

  const helpers = (): Promise<number[]> => servers(dir);
});
