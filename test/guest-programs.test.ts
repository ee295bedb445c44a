/** Real programs of the distribution in a real guest, each as its users run it. A long form: see programs-support.ts. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { START_INIT } from "../src/sandboxes/init.ts";
import { type Programs, packageSource, skipPrograms, startPrograms } from "./programs-support.ts";

describe("real programs", { skip: skipPrograms }, () => {
  let programs: Programs;
  let run: Programs["run"];

  before(async () => {
    programs = await startPrograms();
    run = programs.run;
  });
  after(() => programs?.[Symbol.asyncDispose]());

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
    const script = `b=$(ls -d /usr/lib/postgresql/*/bin); mkdir /pg; chown postgres /pg; mkdir -p /run/postgresql; chown postgres /run/postgresql
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
    const result = await programs.guest.agent.exec({ argv: ["sudo", "id", "-u"], user: "user" });
    assert.deepEqual([result.stdout.toString(), result.stderr.toString()], ["0\n", ""]);
    assert.equal(
      await run(
        "cp -a /etc /e; rsync -aHAXi --delete /etc/ /e/; rsync -aHi /usr/bin/ /b/ | wc -l > /dev/null; rsync -aHi /usr/bin/ /b/",
      ),
      "",
    );
  });

  test("bzip2's own make, which runs its own tests", async () => {
    await programs.guest.agent.writeFile("/root/bzip2.tar.gz", await packageSource("bzip2"));
    const script = `mkdir bz; tar -xf bzip2.tar.gz -C bz --strip-components=1; cd bz; make -s -j2 CFLAGS='-O1 -D_FILE_OFFSET_BITS=64' 2>&1 | tail -5; make -s install PREFIX=/opt/bz
head -c 300000 /dev/urandom > r; /opt/bz/bin/bzip2 -k r; /opt/bz/bin/bunzip2 -c r.bz2 | cmp - r && echo same`;
    const said = await run(script);
    assert.match(said, /If compilation\/?.*same|same$/s);
  });

  test("npm installs from a registry of the guest's own", async () => {
    const script = `mkdir -p thing/bin app; cd thing
cat > package.json <<'J'
{"name": "thing", "version": "1.2.3", "main": "index.js", "bin": {"thing": "bin/thing.js"}, "scripts": {"postinstall": "node -e \\"require('fs').writeFileSync('installed', 'yes')\\""}}
J
echo 'module.exports = 42' > index.js; printf '#!/usr/bin/env node\\nconsole.log("ran", require("thing"))\\n' > bin/thing.js
npm pack --silent >/dev/null; cd ..
cat > registry.js <<'J'
const fs = require("fs"), http = require("http"), crypto = require("crypto");
const tar = fs.readFileSync("thing/thing-1.2.3.tgz"), manifest = JSON.parse(fs.readFileSync("thing/package.json"));
http.createServer((q, s) => {
  if (q.url.endsWith(".tgz")) return s.end(tar);
  const integrity = "sha512-" + crypto.createHash("sha512").update(tar).digest("base64");
  const version = { ...manifest, dist: { tarball: "http://localhost:4873/thing-1.2.3.tgz", integrity } };
  s.end(JSON.stringify({ name: "thing", "dist-tags": { latest: "1.2.3" }, versions: { "1.2.3": version } }));
}).listen(4873, "localhost");
J
node registry.js & trap 'kill %1' EXIT; cd app; npm init -y >/dev/null
npm install --registry http://localhost:4873 --no-audit --no-fund --silent thing; npx --no-install thing; cat node_modules/thing/installed; npm ls --depth=0 | tail -n +2`;
    assert.match(await run(script), /^ran 42\nyes.*thing@1\.2\.3/s);
  });

  test("Go: a program of goroutines, a server and its client; its tests", async () => {
    const script = `mkdir go-program; cd go-program; export GOFLAGS=-p=2 GO111MODULE=on GOPROXY=off; go mod init x 2>/dev/null
cat > main.go <<'G'
package main
import ("fmt"; "io"; "net"; "os/exec"; "sync")
func sum(n int) int { var w sync.WaitGroup; c := make(chan int, n); for i := 1; i <= n; i++ { w.Add(1); go func(i int) { defer w.Done(); c <- i }(i) }; w.Wait(); close(c); t := 0; for v := range c { t += v }; return t }
func main() {
  l, _ := net.Listen("tcp", "localhost:0"); go func() { c, _ := l.Accept(); io.WriteString(c, "over tcp"); c.Close() }()
  c, _ := net.Dial("tcp", l.Addr().String()); b, _ := io.ReadAll(c); o, _ := exec.Command("echo", "child").Output()
  fmt.Print(sum(1000), " ", string(b), " ", string(o))
}
G
printf 'package main\nimport "testing"\nfunc TestSum(t *testing.T) { if sum(4) != 10 { t.Fatal() } }\n' > main_test.go
go build -o p . && ./p && go test . | cut -f1`;
    assert.match(await run(script), /^500500 over tcp child\nok/);
  });

  test("Rust: threads, a file map of its own, a child", async () => {
    const script = `mkdir rust-program; cd rust-program; cat > m.rs <<'R'
use std::{process::Command, sync::mpsc, thread};
fn main() {
    let (s, r) = mpsc::channel();
    for i in 0..20u64 { let s = s.clone(); thread::spawn(move || s.send(i * i).unwrap()); }
    drop(s);
    let out = Command::new("/bin/echo").arg("child").output().unwrap();
    println!("{} {}", r.iter().sum::<u64>(), String::from_utf8(out.stdout).unwrap().trim());
}
R
rustc m.rs && ./m`;
    assert.equal(await run(script), "2470 child");
  });

  test("Java: compiled, in parallel, with its own host's name", async () => {
    const script = `mkdir j; cd j; cat > M.java <<'J'
import java.net.*; import java.nio.file.*; import java.util.stream.*;
public class M { public static void main(String[] a) throws Exception {
  Path p = Files.createTempFile("m", "x"); Files.writeString(p, "text");
  System.out.println(InetAddress.getLocalHost().getHostName() + " " + IntStream.rangeClosed(1, 1000).parallel().sum() + " " + Files.readString(p));
} }
J
javac M.java && java -Xshare:auto -XX:TieredStopAtLevel=1 M`;
    assert.equal(await run(script), "sb-test 500500 text");
  });

  test("Jupyter: a kernel runs cells and keeps what they made", async () => {
    const script = `cat > k.py <<'P'
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(startup_timeout=300)
def cell(code):
    out = []
    client.execute_interactive(code, timeout=300, output_hook=lambda m: out.append(m["content"].get("text") or m["content"].get("data", {}).get("text/plain", "")))
    return "".join(o or "" for o in out).strip()
cell("x = 6")
print(cell("print(x * 7)"), cell("x + 1"))
client.stop_channels(); manager.shutdown_kernel(now=True)
P
python3 k.py`;
    assert.equal(await run(script), "42 7");
  });

  test("Chromium without a screen, in its own sandbox, as a user", async () => {
    const script = `cat > page.html <<'H'
<body><script>fetch("data:,loaded").then(r => r.text()).then(t => { document.body.innerHTML = "<p id=x>" + t + " " + [1,2,3].map(n => n * n).join("-") + "</p>" })</script>
H
timeout 600 chromium-headless-shell --headless --disable-gpu --timeout=300000 --dump-dom file://$PWD/page.html 2> log || { tail -20 log; exit 1; }`;
    assert.match(await run(script, "user"), /<p id="x">loaded 1-4-9<\/p>/);
  });

  test("buildah as a user: an image of a directory, by a file", async () => {
    const script = `export XDG_RUNTIME_DIR=/tmp/run-user; mkdir -p -m 700 $XDG_RUNTIME_DIR ctx; cd ctx; cp /usr/bin/dash sh
cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 .
printf 'FROM scratch\nCOPY sh /bin/sh\nCOPY ld-linux-x86-64.so.2 /lib64/\nCOPY libc.so.6 /lib/x86_64-linux-gnu/\nRUN echo made > /made\nCMD ["/bin/sh"]\n' > Dockerfile
buildah build -q --isolation=chroot -t mine . ; c=$(buildah from mine); buildah run --isolation=chroot $c -- /bin/sh -c 'read a < /made; echo $a'`;
    assert.match(await run(script, "user"), /made$/);
  });

  test("systemd as the image's init: services, their limits, users, timers, the journal; its end", async () => {
    await run(START_INIT);
    assert.match(await run("systemctl is-system-running || true"), /^(running|degraded)$/);
    const script = `cat > /etc/systemd/system/mine.service <<'S'
[Service]
ExecStart=/bin/sh -c 'echo from mine; exec sleep 1000'
MemoryMax=50M
DynamicUser=yes
PrivateTmp=yes
S
systemctl daemon-reload; systemctl start mine; systemctl is-active mine; cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(pgrep -o systemd)/cgroup | sed 's,/init.scope$,,')/system.slice/mine.service/memory.max
journalctl -u mine -o cat --no-pager | grep from; systemd-run --wait --pipe -q echo run; systemctl stop mine; systemctl is-active mine || true; hostnamectl --static || hostname`;
    const said = await run(script);
    assert.match(said, /^active\n52428800\nfrom mine\nrun\ninactive\n/);
    // Its network and files are the sandbox's.
    await run("systemctl start ssh; exec 3<>/dev/tcp/localhost/22; read -t 60 line <&3; echo $line | grep SSH");
  });
});
