/**
 * Real programs of the distribution in a real guest. A long form: `STACYVM_LONG=1` makes an image of their packages (several minutes, and
 * a few hundred MB of downloads, kept in the file that STACYVM_PROGRAMS names) and runs each as its users do.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { exists } from "../src/host/exists.ts";
import { buildBase } from "../src/images/base.ts";
import { packageTree } from "../src/images/packages.ts";
import { type Guest, startGuest } from "./agent-support.ts";

const PACKAGES = [
  ...[
    "git",
    "gcc",
    "make",
    "libc6-dev",
    "sqlite3",
    "nodejs",
    "postgresql",
    "bubblewrap",
    "openssh-server",
    "openssh-client",
  ],
  ...["sudo", "uidmap", "podman", "crun", "fuse-overlayfs", "rsync", "python3", "procps", "systemd"],
];
const skip = process.env.STACYVM_LONG === "1" ? false : "a long form: STACYVM_LONG=1 runs it";

describe("real programs", { skip }, () => {
  let guest: Guest;
  let dir: string;

  before(async () => {
    dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "programs-"));
    const path = process.env.STACYVM_PROGRAMS ?? join(dir, "base.img");
    if (!(await exists(path))) {
      const open = (signal?: AbortSignal) => packageTree({ variant: "minbase", packages: PACKAGES }, undefined, signal);
      await buildBase(path, [{ open, whiteouts: false, keep: (entry) => !/^(dev|proc|sys|run|tmp)\/./.test(entry) }]);
    }
    guest = await startGuest({ base: { path, filesystem: "erofs" }, memoryMiB: 768, diskMiB: 2048, vcpus: 2 });
    await run(
      "useradd -m -s /bin/bash user; echo 'user:100000:65536' | tee /etc/subuid > /etc/subgid; echo 'user ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/user",
    );
  });
  after(async () => {
    await guest?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });

  async function run(script: string, user = "root"): Promise<string> {
    const argv = ["/bin/bash", "-ec", script];
    const cwd = user === "root" ? "/root" : `/home/${user}`;
    const result = await guest.agent.exec({ argv, user, cwd, env: { HOME: cwd, LANG: "C.UTF-8" }, timeoutMs: 500_000 });
    assert.equal(
      result.exitCode,
      0,
      `${script}\n${result.stdout.toString().slice(-2000)}${result.stderr.toString().slice(-2000)}`,
    );
    return result.stdout.toString().trim();
  }

  test("git: commit, branch, merge, clone by hard links, gc, fsck", async () => {
    const script = `git config --global user.name n; git config --global user.email e@x; git config --global init.defaultBranch main
git init -q r; cd r; for i in $(seq 50); do echo $i > f$i; done; git add .; git commit -qm one; git checkout -qb b; echo x >> f1; git commit -qam two
git checkout -q main; echo y >> f2; git commit -qam three; git merge -q b -m merge; cd ..; git clone -q --local r c; cd c; git gc -q; git fsck --full --strict; git status --porcelain; git log --oneline | wc -l`;
    assert.equal(await run(script), "4");
  });

  test("gcc and make: a program of many files, in parallel, and only what changed", async () => {
    const script = `mkdir m; cd m; for i in $(seq 20); do echo "int f$i(void) { return $i; }" > f$i.c; done
{ seq 20 | sed 's/.*/int f&(void);/'; echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'; seq 20 | sed 's/.*/s += f&();/'; echo 'printf("%d\\n", s); }'; } > main.c
printf 'p: $(patsubst %%.c,%%.o,$(wildcard *.c))\\n\\t$(CC) -o $@ $^\\n' > Makefile
make -s -j4; ./p; make -q; sleep 1; touch f3.c; make -j4 | grep -c -- ' -c '`;
    assert.equal(await run(script), "210\n1");
  });

  test("sqlite in WAL mode, with two writers, one of which is killed", async () => {
    const script = `sqlite3 d 'pragma journal_mode=wal; create table t(a integer)'; (for i in $(seq 500); do echo "insert into t values($i);"; done) > in
sqlite3 -cmd '.timeout 20000' d < in & sqlite3 -cmd '.timeout 20000' d < in & k=$!; sleep .3; kill -9 $k || true; wait %1
sqlite3 d 'pragma integrity_check; select count(*) >= 500 from t'`;
    assert.match(await run(script), /ok\n1$/);
  });

  test("node: files watched, a server and its client, workers", async () => {
    const script = `cat > a.js <<'J'
const fs = require("fs"), http = require("http"), { Worker } = require("worker_threads");
fs.mkdirSync("w", { recursive: true });
const seen = new Promise((r) => fs.watch("w", (e, f) => r(f)));
setTimeout(() => fs.writeFileSync("w/x", "1"), 200);
const server = http.createServer((_, s) => s.end("hi")).listen(0, "localhost", async () => {
  const body = await new Promise((r) => http.get({ port: server.address().port, host: "localhost" }, (s) => s.on("data", (d) => r(String(d)))));
  const n = await new Promise((r) => new Worker("require('worker_threads').parentPort.postMessage(7)", { eval: true }).on("message", r));
  console.log(await seen, body, n); process.exit();
});
J
node a.js`;
    assert.equal(await run(script), "x hi 7");
  });

  test("PostgreSQL recovers what was committed before its processes were killed", async () => {
    const script = `b=$(ls -d /usr/lib/postgresql/*/bin); mkdir /pg; chown postgres /pg; chown postgres /var/run/postgresql || true
p() { su postgres -c "cd /; $*"; }
p "$b/initdb -D /pg/d -A trust > /dev/null"; p "$b/pg_ctl -D /pg/d -w -l /pg/log start > /dev/null"; p "$b/pgbench -i -q postgres 2> /dev/null"
p "$b/pgbench -c 4 -T 5 postgres > /dev/null 2>&1" & sleep 3; p "psql -qtAc 'create table mark as select count(*) n from pgbench_history' postgres"
pkill -9 postgres; wait || true; rm -f /pg/d/postmaster.pid; p "$b/pg_ctl -D /pg/d -w -l /pg/log start > /dev/null"
p "psql -qtAc 'select (select count(*) from pgbench_history) >= n, (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers) from mark' postgres"`;
    assert.match(await run(script), /t\|t$/);
  });

  test("bubblewrap as a user", async () => {
    const script =
      "bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --unshare-all --uid 0 sh -c 'id -u; ls -d /proc/[0-9]* | wc -l; touch /tmp/x'";
    assert.match(await run(script, "user"), /^0\n[1-4]$/);
  });

  test("podman as a user: a container of a directory, with a file system of its own", async () => {
    const script = `export XDG_RUNTIME_DIR=/tmp/run-user; mkdir -p -m 700 $XDG_RUNTIME_DIR root/bin root/proc root/tmp root/usr root/lib64 root/lib
cp -a /usr/bin/dash root/bin/sh; cp -aL /lib64/ld-linux-x86-64.so.2 root/lib64/; mkdir -p root/lib/x86_64-linux-gnu; cp -aL /lib/x86_64-linux-gnu/libc.so.6 root/lib/x86_64-linux-gnu/
podman --cgroup-manager=cgroupfs --events-backend=file --storage-driver=vfs run --rm --network=none --cgroups=disabled --rootfs $PWD/root /bin/sh -c 'echo in $((6*7)) > /tmp/x; read a < /tmp/x; echo $a'`;
    assert.match(await run(script, "user"), /in 42$/);
  });

  test("sshd and ssh, with a key and a terminal", async () => {
    const script = `mkdir -p /run/sshd ~/.ssh; ssh-keygen -A > /dev/null; ssh-keygen -q -N '' -t ed25519 -f ~/.ssh/id; cat ~/.ssh/id.pub > ~/.ssh/authorized_keys; chmod 600 ~/.ssh/authorized_keys
/usr/sbin/sshd -p 2222; o='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -q -i /root/.ssh/id -p 2222'; ssh $o localhost 'echo over ssh'; ssh -tt $o localhost tty | tr -d '\\r'; echo file > f; scp -q -O -P 2222 -i ~/.ssh/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null f localhost:g; cat g`;
    assert.match(await run(script), /^over ssh\n\/dev\/pts\/\d+\nfile$/);
  });

  test("sudo says nothing of host names; rsync leaves equal trees alone", async () => {
    const result = await guest.agent.exec({ argv: ["sudo", "id", "-u"], user: "user" });
    assert.deepEqual([result.stdout.toString(), result.stderr.toString()], ["0\n", ""]);
    assert.equal(
      await run(
        "cp -a /etc /e; rsync -aHAXi --delete /etc/ /e/; rsync -aHi /usr/bin/ /b/ | wc -l > /dev/null; rsync -aHi /usr/bin/ /b/",
      ),
      "",
    );
  });
});
