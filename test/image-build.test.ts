/** Images built in a real sandbox: by command line and over HTTP, with their cache. */
import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { DEFAULT_LIMITS } from "../src/images/base.ts";
import { ErofsBase } from "../src/images/erofs-reader.ts";
import { createImages } from "../src/images/store.ts";
import { listTree, mountBase, mountProblem, tar } from "./images-support.ts";
import { Server } from "./server-support.ts";

let root: string;
let data: string;
let context: string;

before(async () => {
  root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "build-"));
  data = join(root, "data");
  context = join(root, "context");
  // The base is imported into images of the test's own: what it builds must not stay in the checkout's.
  const shared = dataPaths();
  const busybox = await createImages(shared).resolve("stacyvm/busybox");
  await mkdir(join(data, "images"), { recursive: true });
  await symlink(shared.assets, join(data, "assets"));
  await symlink(join(shared.images, busybox.digest.slice(7)), join(data, "images", busybox.digest.slice(7)));
  const refs = JSON.parse(await readFile(join(shared.images, "refs.json"), "utf8"));
  const key = Object.keys(refs).find((name) => refs[name].digest === busybox.digest) ?? "";
  await writeFile(join(data, "images", "refs.json"), JSON.stringify({ [key]: refs[key] }));
  await mkdir(join(context, "src/sub"), { recursive: true });
  await writeFile(join(context, "src/a.txt"), "first");
  await writeFile(join(context, "src/sub/b.sh"), "#!/bin/sh\necho b\n", { mode: 0o755 });
  await symlink("a.txt", join(context, "src/link"));
});
after(() => rm(root, { recursive: true, force: true }));

function stacyvm(...args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [join(packageRoot, "src/cli/main.ts"), ...args],
      { env: { ...process.env, STACYVM_DATA_DIR: data, STACYVM_PROVIDER: "qemu" }, cwd: root },
      (error, stdout, stderr) => resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

// biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
async function build(...args: string[]): Promise<any> {
  const { code, stdout, stderr } = await stacyvm("image", "build", context, "--json", ...args);
  assert.equal(code, 0, stderr);
  return { ...JSON.parse(stdout), stderr };
}

/** Of machines and of work, in the places where they are. */
async function leftovers(): Promise<string[]> {
  const found = ["sandboxes", "tmp"].map((name) => readdir(join(data, name)).catch(() => []));
  return (await Promise.all(found)).flat();
}

const DOCKERFILE = `FROM stacyvm/busybox
ARG WHO
ENV NAME="of the image" PATH=/opt/bin:$PATH
WORKDIR /app/made
RUN set -e; echo $WHO >who; mkdir -m 0711 /secret; chown 12:34 /secret; ln -s who alias; ln who second; \\
    rm /bin/vi; rm -r /mnt; rm -r /home; mkdir /home; touch /home/new; rm /etc/shadow; mkdir /etc/shadow; \\
    mknod /opt-pipe p; chmod 4755 who; sleep 1000 & echo "said by a step"
COPY --chown=12:nogroup --chmod=0640 src/a.txt /opt/renamed
COPY src ./
RUN cat a.txt sub/b.sh
USER nobody
CMD ["sh", "-c", "echo $NAME; cat who; id -u; pwd; sub/b.sh"]
`;

test("a Dockerfile's steps, what they changed, and the image's configuration", async (t) => {
  await writeFile(join(context, "Dockerfile"), DOCKERFILE);
  const image = await build("-t", "built/one:1", "--arg", "WHO=world");
  assert.match(image.stderr, /^said by a step$/m);
  assert.match(image.stderr, /^first#!\/bin\/sh$/m);
  assert.deepEqual([image.cached, image.steps], [0, 8]);
  assert.equal(image.config.workdir, "/app/made");
  assert.ok(image.config.env.includes("NAME=of the image"));
  const ran = await stacyvm("run", "--cold", "built/one:1");
  assert.equal(ran.stdout, "of the image\nworld\n65534\n/app/made\nb\n", ran.stderr);
  assert.deepEqual(await leftovers(), []);
  const problem = await mountProblem();
  if (problem !== undefined) return t.skip(problem);
  const base = await createImages(dataPaths()).resolve("stacyvm/busybox");
  await using _built = await mountBase(image.path, join(root, "built"));
  await using _base = await mountBase(base.base, join(root, "base"));
  const [built, before] = await Promise.all([listTree(join(root, "built")), listTree(join(root, "base"))]);
  const short = (path: string) => {
    const { mode, uid, gid, target, size, same } = built.get(path) ?? {};
    return [mode, uid, gid, target ?? size, ...(same == null ? [] : [same])];
  };
  assert.deepEqual(short("secret"), ["0o40711", 12, 34, undefined]);
  assert.deepEqual(short("app/made/who"), ["0o104755", 0, 0, 6, "app/made/second"]);
  assert.deepEqual(short("app/made/second"), ["0o104755", 0, 0, 6, "app/made/second"]);
  assert.deepEqual(short("app/made/alias"), ["0o120777", 0, 0, "who"]);
  assert.deepEqual(short("opt/renamed"), ["0o100640", 12, 65534, 5]);
  assert.deepEqual(short("opt"), ["0o40755", 12, 65534, undefined]);
  assert.deepEqual(short("app/made/link"), ["0o120777", 0, 0, "a.txt"]);
  assert.deepEqual(short("app/made/sub/b.sh"), ["0o100755", 0, 0, 17]);
  assert.deepEqual(short("opt-pipe"), ["0o10644", 0, 0, undefined]);
  assert.equal(short("etc/shadow")[0], "0o40755");
  assert.ok(built.has("home/new") && !built.has("bin/vi") && !built.has("mnt"));
  // Nothing else of the base has changed: no identity of the building sandbox, no mark of its overlay.
  const changed = /^(bin\/vi$|mnt$|home|secret$|app|opt|etc\/shadow$|workspace$)/;
  for (const [path, { mtime: _time, links: _links, ...entry }] of before) {
    if (changed.test(path)) continue;
    const { mtime: _later, links: _more, ...now } = built.get(path) ?? {};
    assert.deepEqual(now, entry, path);
  }
  const added = [...built.keys()].filter((path) => !before.has(path) && !changed.test(path));
  assert.deepEqual(added, []);
});

test("what a stage or the build's directory has comes over as it is; what is made belongs to whom it should", async () => {
  const odd = join(root, "odd");
  await mkdir(odd);
  const at = (name: string): Buffer => Buffer.concat([Buffer.from(`${odd}/`), Buffer.from(name, "latin1")]);
  for (const name of ["c\xe8", "c\xe9"]) await writeFile(at(name), name);
  await writeFile(join(odd, "old"), "1960");
  // Node's own utimes takes a time before 1970 for now.
  execFileSync("touch", ["-d", "@-315619200", join(odd, "old")]);
  await writeFile(
    join(odd, "Dockerfile"),
    `FROM stacyvm/busybox AS stage
RUN set -e; mkdir /z; cd /z; mkfifo -m 0666 pipe; mknod -m 0606 tty c 4 300; mknod disk b 7 70; echo 1 >"$(printf 'a\\377')"; \\
    echo 1901 >older; touch -d @-2147000000 older
FROM stacyvm/busybox
COPY --from=stage /z /frm/
COPY --from=stage /z/older /single
COPY --from=stage --chown=7:8 /z/older /srv/new/deep/
COPY . /here/
USER 1000
WORKDIR /work/mine
RUN touch f
`,
  );
  const { code, stdout, stderr } = await stacyvm("image", "build", odd, "--json", "-t", "built/odd:1");
  assert.equal(code, 0, stderr);
  await using base = await ErofsBase.open(JSON.parse(stdout).path);
  const tree = await base.tree(DEFAULT_LIMITS);
  const node = (path: string): unknown[] => {
    const found = tree.find(path);
    const numbers = found !== undefined && "major" in found && found.major > 0 ? [found.major, found.minor] : [];
    return [found?.type, found?.uid, found?.gid, found?.mode, ...numbers];
  };
  assert.deepEqual(node("frm/pipe"), ["fifo", 0, 0, 0o666]);
  assert.deepEqual(node("frm/tty"), ["character", 0, 0, 0o606, 4, 300]);
  assert.deepEqual(node("frm/disk"), ["block", 0, 0, 0o644, 7, 70]);
  for (const path of ["frm/a\xff", "here/c\xe8", "here/c\xe9"]) assert.equal(node(path)[0], "file", path);
  for (const path of ["frm/older", "single"]) assert.equal(tree.find(path)?.mtime, -2_147_000_000, path);
  assert.equal(tree.find("here/old")?.mtime, -315_619_200);
  for (const path of ["srv/new", "srv/new/deep"]) assert.deepEqual(node(path), ["directory", 7, 8, 0o755], path);
  for (const path of ["work", "work/mine"]) assert.deepEqual(node(path), ["directory", 1000, 1000, 0o755], path);
  assert.deepEqual(node("work/mine/f").slice(0, 3), ["file", 1000, 0]);
});

test("what a sandbox has of its own hides nothing of an image: /run, /etc/hosts, a whole root from a stage, a closed directory of work", async () => {
  const own = join(root, "own");
  await mkdir(join(own, "rootfs/etc"), { recursive: true });
  await writeFile(join(own, "rootfs/etc/hosts"), "10.0.0.7 mine\n");
  await symlink("/nowhere", join(own, "rootfs/etc/resolv.conf"));
  await writeFile(join(own, "note"), "copied\n");
  await writeFile(
    join(own, "Dockerfile"),
    `FROM stacyvm/busybox AS stage
COPY rootfs /
COPY note /run/cfg/note
RUN set -e; mkdir /run/sshd; mkdir -m 2775 /run/db; chown 7:8 /run/db; cat /run/cfg/note; mkdir -m 700 /priv; echo u:x:1001:1001::/:/bin/sh >>/etc/passwd
FROM scratch
COPY --from=stage / /
RUN rmdir /run/sshd
WORKDIR /priv
USER u
RUN pwd
`,
  );
  const { code, stdout, stderr } = await stacyvm("image", "build", own, "--json", "-t", "built/own:1");
  assert.equal(code, 0, stderr);
  const { path } = JSON.parse(stdout);
  const base = await ErofsBase.open(path);
  const tree = await base.tree(DEFAULT_LIMITS);
  await base[Symbol.asyncDispose]();
  assert.equal(tree.find("etc/hosts")?.type, "file");
  const db = tree.find("run/db");
  assert.deepEqual([db?.type, db?.uid, db?.gid, db?.mode], ["directory", 7, 8, 0o2775]);
  assert.deepEqual(
    ["run/cfg/note", "run/sshd", "run/stacyvm", "run/stacyvm-build-step"].map((name) => tree.find(name)?.type),
    ["file", undefined, undefined, undefined],
  );
  const script = "cat /run/cfg/note; stat -c '%u:%g %a' /run/db; grep 10.0.0.7 /etc/hosts; pwd; id -u";
  const ran = await stacyvm("run", "--cold", "built/own:1", "--", "sh", "-c", script);
  assert.equal(ran.stdout, "copied\n7:8 2775\n10.0.0.7 mine\n/priv\n1001\n", ran.stderr);
});

test("the image's own command is asked to end by the image's signal, another one by TERM", async () => {
  await writeFile(
    join(context, "Stop"),
    `FROM stacyvm/busybox
ENTRYPOINT ["sh", "-c"]
CMD ["trap 'echo quit; exit' QUIT; trap 'echo term; exit' TERM; sleep 60 & wait"]
STOPSIGNAL SIGQUIT
`,
  );
  const image = await build("-t", "built/stop:1", "-f", join(context, "Stop"));
  const own = await stacyvm("run", "--cold", "--timeout", "2s", "built/stop:1");
  assert.deepEqual([own.code, own.stdout], [124, "quit\n"], own.stderr);
  const other = await stacyvm("run", "--timeout", "2s", "built/stop:1", "--", "sh", "-c", image.config.cmd[0]);
  assert.deepEqual([other.code, other.stdout], [124, "term\n"], other.stderr);
});

test("the same again takes nothing; a changed file repeats what follows its copy; a failed step shows its words", async () => {
  const again = await build("-t", "built/one:2", "--arg", "WHO=world");
  assert.deepEqual([again.cached, again.steps], [8, 8]);
  assert.doesNotMatch(again.stderr, /said by a step/);
  await writeFile(join(context, "src/a.txt"), "second");
  const changed = await build("-t", "built/one:1", "--arg", "WHO=world");
  assert.equal(changed.cached, 3);
  assert.doesNotMatch(changed.stderr, /said by a step/);
  assert.match(changed.stderr, /^second#!\/bin\/sh$/m);
  const ran = await stacyvm(
    "run",
    "--cold",
    "built/one:1",
    "sh",
    "-c",
    "cat a.txt; ls -ld /bin/vi /home/*; ls -A /home",
  );
  assert.match(ran.stdout, /^second.*\/home\/new\nnew\n$/s, ran.stderr);
  await writeFile(join(context, "broken.yaml"), "from: stacyvm/busybox\nsteps:\n  - run: echo the reason; false\n");
  const failed = await stacyvm("image", "build", context, "-t", "built/bad", "-f", join(context, "broken.yaml"));
  assert.equal(failed.code, 2);
  assert.match(failed.stderr, /line 3: `run echo the reason; false` ended with 1\n +the reason/);
  assert.deepEqual(await leftovers(), []);
});

const STAGES = `ARG BASE=stacyvm/busybox
FROM \${BASE} AS first
ONBUILD ENV PUT_OFF=yes
WORKDIR /work
RUN <<EOF
set -e
mkdir -p out/sub
echo built > out/file
echo deep > out/sub/deep
ln -s file out/link
chown -R 7:8 out/sub
EOF
RUN <<EOF
#!/bin/sh
echo "a program" > out/program
EOF

FROM first AS unused
RUN echo never; exit 1

FROM first AS second
RUN echo $PUT_OFF > put-off; test -f out/file; ln -s /led/there /lead
COPY src/a.txt /lead
RUN test -L /lead && cat /led/there | grep one
ADD pkg.tar.gz /unpacked/
ADD src/a.txt /plain/
COPY <<EOF <<"RAW" /texts/
put off: $PUT_OFF
EOF
$PUT_OFF
RAW

FROM scratch
COPY --from=stacyvm/busybox /bin/busybox /bin/
COPY --from=first /work/out/ /out/
COPY --from=second /work/put-off /work/out/link /unpacked /plain /texts /x/
COPY --chown=5 --chmod=0600 --from=first /work/out/fi[!x]e* /work/out/f?le /owned/
COPY . /context/
VOLUME /data /var/lib/db
WORKDIR /made/by/nobody
USER :2000
CMD ["/bin/busybox", "sh", "-c", "PATH=/bin; b() { busybox $*; }; b id -u; b id -g; b pwd; b ls -A /context /context/src; b cat /x/link"]
`;

test("several stages: copies between them and from images, here-documents, archives, ignore rules, volumes, a group alone", async () => {
  const dir = join(root, "stages");
  await mkdir(join(dir, "src"), { recursive: true });
  await mkdir(join(dir, ".git"));
  for (const [name, content] of [
    [".env", "SECRET"],
    [".git/config", "SECRET"],
    ["src/.env", "SECRET"],
    ["src/a.txt", "one"],
    ["src/.kept", "kept"],
    [".dockerignore", "*\n!src\n!pkg.tar.gz\n**/.env\n"],
    ["Dockerfile", STAGES],
  ] as const) {
    await writeFile(join(dir, name), content);
  }
  await symlink("a.txt", join(dir, "src/link"));
  await writeFile(join(dir, "pkg.tar.gz"), gzipSync(tar([{ path: "pkg/inside", content: "packed", uid: 3 }])));
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await stacyvm("image", "build", dir, "--json", "-t", "built/stages:1", ...args);
    assert.equal(code, 0, stderr);
    return { ...JSON.parse(stdout), stderr };
  };
  const image = await run();
  assert.doesNotMatch(image.stderr, /never/);
  assert.deepEqual(image.config.volumes, ["/data", "/var/lib/db"]);
  await using base = await ErofsBase.open(image.path);
  const tree = await base.tree(DEFAULT_LIMITS);
  const owner = (path: string) => {
    const node = tree.find(path);
    return [node?.type, node?.mode, node?.uid, node?.gid];
  };
  const text = (path: string): string => {
    const node = tree.find(path);
    return node?.type === "file" ? (node.data.tail?.toString() ?? "") : `a ${node?.type}`;
  };
  assert.deepEqual(owner("out/sub/deep"), ["file", 0o644, 7, 8]);
  assert.equal(text("out/file"), "built\n");
  assert.equal(text("out/link"), "a symlink");
  assert.equal(text("x/link"), "built\n", "a source that is a link stands for its file");
  assert.equal(text("out/program"), "a program\n");
  assert.equal(text("x/put-off"), "yes\n");
  assert.equal(text("x/pkg/inside"), "packed");
  assert.deepEqual(owner("x/pkg/inside"), ["file", 0o644, 3, 0]);
  assert.equal(text("x/a.txt"), "one");
  assert.equal(text("x/EOF"), "put off: yes\n");
  assert.equal(text("x/RAW"), "$PUT_OFF\n");
  assert.deepEqual(owner("owned/file"), ["file", 0o600, 5, 5]);
  assert.deepEqual(owner("var/lib/db"), ["directory", 0o755, 0, 0]);
  assert.deepEqual(owner("data"), ["directory", 0o755, 0, 0]);
  for (const [path] of tree.nodes()) assert.doesNotMatch(path, /\.env|\.git|Dockerfile|stacyvm-build-step/);
  const ran = await stacyvm("run", "--cold", "built/stages:1");
  assert.equal(
    ran.stdout,
    "0\n2000\n/made/by/nobody\n/context:\npkg.tar.gz\nsrc\n\n/context/src:\n.kept\na.txt\nlink\nbuilt\n",
    ran.stderr,
  );

  const again = await run();
  assert.deepEqual([again.digest, again.cached], [image.digest, image.steps]);
  await writeFile(join(dir, "src/.kept"), "changed");
  const changed = await run();
  assert.doesNotMatch(changed.stderr, /starting.*first|a program/);
  assert.ok(changed.cached >= 8, String(changed.cached));
  const target = await run("--target", "first");
  assert.deepEqual([target.cached, target.steps], [4, 4]);
  assert.deepEqual(await leftovers(), []);
});

test("over HTTP: a tar with the steps in it, progress and output line by line", async () => {
  await using server = await Server.create();
  await rm(join(server.root, "images"));
  await symlink(join(data, "images"), join(server.root, "images"));
  const body = tar([
    {
      path: "./stacyvm-image.yaml",
      content: "from: stacyvm/busybox\nsteps:\n  - copy: [in/*.txt, /data/]\n  - run: cat /data/x.txt\nuser: 7\n",
    },
    { path: "in/x.txt", content: "over HTTP\n" },
  ]);
  const response = await fetch(`${server.url}/api/v1/images/build?reference=built/http:1&stream=true&memory_mb=256`, {
    method: "POST",
    headers: { "content-type": "application/x-tar" },
    body: new Uint8Array(body),
  });
  const lines = (await response.text())
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const last = lines.at(-1);
  assert.equal(last.image?.reference, "docker.io/built/http:1", JSON.stringify(last));
  assert.equal(last.image.config.user, "7");
  assert.ok(lines.some(({ step }) => step === "3/3 run cat /data/x.txt"));
  assert.ok(lines.some(({ output }) => output === "over HTTP\n"));
  const list = await (await fetch(`${server.url}/api/v1/sandboxes`)).json();
  assert.deepEqual(list, []);
  const missing = await fetch(`${server.url}/api/v1/images/build?reference=built/none:1`, {
    method: "POST",
    body: new Uint8Array(tar([{ path: "other", content: "x" }])),
  });
  assert.equal(missing.status, 404);

  // The published server's way: packages on a base. This image has neither pip nor anything to install it with.
  const environment = async (name: string, packages: string[]) => {
    const spec = { owner_id: "alice", name, base_image: "stacyvm/busybox", python_packages: packages };
    const made = await server.call("POST", "/environments/specs", spec);
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { body: queued } = await server.call("POST", "/environments/builds", { spec_id: made.body.id });
    for (;;) {
      const { body: build } = await server.call("GET", `/environments/builds/${queued.id}`);
      if (build.status === "ready" || build.status === "failed") return build;
      await delay(100);
    }
  };
  const ready = await environment("Env", []);
  assert.equal(ready.status, "ready", ready.log);
  const { body: config } = await server.call("GET", `/environments/builds/${ready.id}/spawn-config`);
  assert.deepEqual(
    [config.ready, config.image, config.digest],
    [true, ready.artifacts[0].image_ref, ready.digest_local],
  );
  const { body: sandbox } = await server.call("POST", "/sandboxes", { image: config.image, memory_mb: 256 });
  const ran = await server.call("POST", `/sandboxes/${sandbox.id}/exec`, { command: "pwd; ls -d /output /data" });
  assert.equal(ran.body.stdout, "/workspace\n/data\n/output\n");
  const failed = await environment("Other", ["requests>=2"]);
  assert.equal(failed.status, "failed");
  assert.match(failed.log, /run pip install --no-cache-dir 'requests>=2'/i);
  assert.match(failed.error, /pip: not found/);
});

test("a build that runs, or was killed, keeps no server from starting, and leaves nothing", async (t) => {
  const slow = await mkdtemp(join(root, "slow-"));
  await writeFile(join(slow, "Dockerfile"), "FROM stacyvm/busybox\nRUN sleep 300\n");
  const tmp = join(data, "tmp");
  const machines = async (): Promise<string[]> =>
    (await readdir(tmp).catch(() => [])).filter((name) => name.startsWith("build-")).map((name) => join(tmp, name));
  const child = spawn(
    process.execPath,
    [join(packageRoot, "src/cli/main.ts"), "image", "build", slow, "-t", "built/slow:1"],
    { env: { ...process.env, STACYVM_DATA_DIR: data, STACYVM_PROVIDER: "qemu" }, stdio: "ignore" },
  );
  const ended = once(child, "exit");
  t.after(() => child.kill("SIGKILL"));
  const running = async (): Promise<number[]> => (await Promise.all((await machines()).map(processesIn))).flat();
  while ((await running()).length === 0) {
    assert.equal(child.exitCode, null, "the build has ended");
    await delay(100);
  }
  // The last test here: it takes the data directory with it.
  await using server = await Server.open(data);
  assert.equal((await running()).length, 1, "the build goes on");
  child.kill("SIGKILL");
  await ended;
  assert.equal((await running()).length, 1, "its machine does not know");
  await server.stop("SIGTERM");
  await server.start();
  assert.deepEqual(await machines(), []);
  // The same over HTTP: there its sandbox is one of the server, which the next one ends.
  const body = tar([{ path: "Dockerfile", content: "FROM stacyvm/busybox\nRUN sleep 300\n" }]);
  const cut = fetch(`${server.url}/api/v1/images/build?reference=built/slow:2&memory_mb=256`, {
    method: "POST",
    headers: { "content-type": "application/x-tar" },
    body: new Uint8Array(body),
  }).then(
    () => assert.fail("the server is killed before"),
    () => {},
  );
  const list = async (): Promise<{ state: string }[]> => server.ok("GET", "/sandboxes");
  while ((await list())[0]?.state !== "running") await delay(100);
  await server.stop("SIGKILL");
  await cut;
  await server.start();
  assert.deepEqual([await list(), await server.machines()], [[], []]);
});
