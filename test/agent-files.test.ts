/** Files, trees, tunnels and the guest as a whole, in a real Linux guest. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { extract, pack } from "tar-stream";
import type { Agent } from "../src/guest/agent.ts";
import { StacyError } from "../src/host/error.ts";
import { type Guest, shell, startGuest } from "./agent-support.ts";

let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest({ diskMiB: 256 });
  agent = guest.agent;
});

after(async () => {
  await guest?.[Symbol.asyncDispose]();
});

async function fails(work: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}

test("write and read, small and large, with parents", async () => {
  for (const size of [0, 1, 65_535, 65_536, 65_537, 262_144, 3_000_001]) {
    const data = randomBytes(size);
    await agent.writeFile(`/workspace/new/dir/${size}`, data);
    assert.ok((await agent.readFile(`/workspace/new/dir/${size}`)).equals(data), `${size} bytes`);
  }
  assert.equal((await agent.readFile("/workspace/new/dir/3000001", { offset: 2_999_990, length: 100 })).length, 11);
  assert.equal((await agent.readFile("/workspace/new/dir/3000001", { offset: 5, length: 70_000 })).length, 70_000);
  assert.equal((await agent.readFile("/workspace/new/dir/1", { offset: 50 })).length, 0);
});

test("files that have no size of their own are read to the end", async () => {
  assert.match((await agent.readFile("/proc/version")).toString(), /^Linux version/);
  assert.ok((await agent.readFile("/proc/kallsyms")).length > 65_536);
});

test("streams in both directions", async () => {
  const data = randomBytes(5_000_000);
  async function* pieces() {
    for (let at = 0; at < data.length; at += 77_777) yield data.subarray(at, at + 77_777);
  }
  await agent.writeFile("/workspace/stream", pieces());
  const { stat, stream } = await agent.readStream("/workspace/stream");
  assert.equal(stat.size, data.length);
  const hash = createHash("sha256");
  for await (const chunk of stream) hash.update(chunk as Buffer);
  assert.equal(hash.digest("hex"), createHash("sha256").update(data).digest("hex"));
});

test("a source that fails leaves the old file and nothing beside it", async () => {
  await agent.writeFile("/workspace/atomic/file", Buffer.from("old"));
  async function* broken() {
    yield randomBytes(200_000);
    throw new Error("the source failed");
  }
  await assert.rejects(agent.writeFile("/workspace/atomic/file", broken()), /the source failed/);
  assert.equal((await agent.readFile("/workspace/atomic/file")).toString(), "old");
  assert.equal((await agent.list("/workspace/atomic")).length, 1);
});

test("where no file can be made the error names the one that was asked for", async () => {
  await assert.rejects(agent.writeFile("/proc/none", Buffer.from("x")), { message: /\/proc\/none: / });
});

test("modes, append, exclusive, offset and the mode that a replaced file keeps", async () => {
  const path = "/workspace/modes";
  await agent.writeFile(path, Buffer.from("a"), { mode: 0o750 });
  assert.equal((await agent.stat(path)).mode, 0o750);
  await agent.writeFile(path, Buffer.from("0123456789"));
  assert.equal((await agent.stat(path)).mode, 0o750);
  await agent.writeFile(path, Buffer.from("abc"), { append: true });
  await agent.writeFile(path, Buffer.from("XY"), { offset: 4 });
  assert.equal((await agent.readFile(path)).toString(), "0123XY6789abc");
  await fails(agent.writeFile(path, Buffer.from("no"), { exclusive: true }), "conflict");
});

test("a symlink is written through and described as asked", async () => {
  await shell(agent, "cd /workspace && echo x > target && ln -sf target link");
  await agent.writeFile("/workspace/link", Buffer.from("through"));
  assert.equal((await agent.readFile("/workspace/target")).toString(), "through");
  assert.deepEqual(
    [(await agent.stat("/workspace/link", { follow: false })).kind, (await agent.stat("/workspace/link")).kind],
    ["symlink", "file"],
  );
  assert.equal((await agent.stat("/workspace/link", { follow: false })).target, "target");
});

test("every call follows symlinks, or does not, as asked", async () => {
  await shell(
    agent,
    "mkdir -p /workspace/f/d/in && cd /workspace/f && echo one >file && echo two >d/in/deep && ln -s file l && ln -s d ld && ln -s gone dangling && chmod 644 file",
  );
  const at = (path: string) => `/workspace/f/${path}`;
  const kinds = async (path: string, options: { recursive?: boolean; follow?: boolean }) =>
    (await agent.list(at(path), options)).map((one) => `${one.path.slice("/workspace/f/".length)} ${one.kind}`).sort();
  assert.equal((await agent.readFile(at("l"))).toString(), "one\n");
  await fails(agent.readFile(at("l"), { follow: false }), "invalid");
  assert.equal((await agent.readFile(at("file"), { follow: false })).toString(), "one\n");
  assert.deepEqual(await kinds("", { recursive: false }), [
    ...["d directory", "dangling symlink", "file file", "l symlink", "ld symlink"],
  ]);
  assert.deepEqual(await kinds("", { recursive: true, follow: true }), [
    ...["d directory", "d/in directory", "d/in/deep file", "dangling symlink", "file file", "l file", "ld directory"],
    ...["ld/in directory", "ld/in/deep file"],
  ]);
  await agent.copy(at("ld"), at("links"), { recursive: true });
  assert.equal((await agent.stat(at("links"), { follow: false })).kind, "symlink");
  await agent.copy(at("ld"), at("copied"), { recursive: true, follow: true });
  assert.equal((await agent.readFile(at("copied/in/deep"))).toString(), "two\n");
  await agent.copy(at("l"), at("l-copied"), { follow: true });
  assert.equal((await agent.stat(at("l-copied"), { follow: false })).kind, "file");
  await agent.chmod(at("l"), 0o600);
  assert.equal((await agent.stat(at("file"))).mode, 0o600);
  await fails(agent.chmod(at("l"), 0o644, { follow: false }), "invalid");
  const names = async (follow: boolean) => {
    const found: string[] = [];
    const parts = extract();
    parts.on("entry", ({ name, type }, body, next) => {
      found.push(`${name} ${type}`);
      body.on("end", next).resume();
    });
    for await (const chunk of await agent.tarOut(at(""), { follow })) parts.write(chunk);
    return found.sort();
  };
  assert.ok((await names(false)).includes("ld symlink"));
  const followed = await names(true);
  assert.ok(
    followed.includes("ld/in/deep file") && followed.includes("l file") && followed.includes("dangling symlink"),
  );
  await agent.writeFile(at("l"), Buffer.from("replaced"), { follow: false });
  assert.equal((await agent.stat(at("l"), { follow: false })).kind, "file");
  assert.equal((await agent.readFile(at("file"))).toString(), "one\n");
  await fails(agent.writeFile(at("ld"), Buffer.from("x"), { follow: false, atomic: false }), "invalid");
  // A circle of directories ends with an error and not with the guest.
  await shell(agent, "ln -s .. /workspace/f/d/up");
  await fails(agent.list(at(""), { recursive: true, follow: true }), "limit");
});

test("each kind of failure is its own error", async () => {
  await shell(agent, "mkdir -p /workspace/full/of && touch /workspace/full/of/things");
  await fails(agent.readFile("/workspace/nothing"), "not-found");
  await fails(agent.readFile("/workspace"), "is-directory");
  await fails(agent.writeFile("/workspace", Buffer.from("")), "is-directory");
  await fails(agent.list("/etc/passwd"), "not-directory");
  await fails(agent.readFile("/etc/passwd/x"), "not-directory");
  await fails(agent.remove("/workspace/full"), "not-empty");
  await fails(agent.writeFile("/sys/kernel/notes", Buffer.from("x")), "permission");
  await fails(agent.mkdir("/workspace/full"), "conflict");
  await fails(agent.copy("/workspace/full", "/workspace/full/of/itself", { recursive: true }), "invalid");
  await fails(agent.readFile("\0"), "invalid");
});

test("list, glob, move, copy, chmod, mkdir and remove", async () => {
  await shell(
    agent,
    "mkdir -p /workspace/t/a/b && cd /workspace/t && echo 1 >x.ts && echo 2 >a/y.ts && echo 3 >a/b/z.js && ln -s x.ts l",
  );
  const names = (list: { path: string }[]) => list.map((f) => f.path.replace("/workspace/t/", "")).sort();
  assert.deepEqual(names(await agent.list("/workspace/t")), ["a", "l", "x.ts"]);
  assert.deepEqual(names(await agent.list("/workspace/t", { depth: 2 })), ["a", "a/b", "a/y.ts", "l", "x.ts"]);
  assert.equal((await agent.list("/workspace/t", { recursive: true })).length, 6);
  assert.deepEqual(await agent.glob("**/*.{ts,js}", "/workspace/t"), [
    "/workspace/t/a/b/z.js",
    "/workspace/t/a/y.ts",
    "/workspace/t/x.ts",
  ]);
  await agent.copy("/workspace/t", "/workspace/u", { recursive: true });
  assert.equal((await agent.readFile("/workspace/u/a/b/z.js")).toString(), "3\n");
  assert.equal((await agent.stat("/workspace/u/l", { follow: false })).target, "x.ts");
  await agent.move("/workspace/u/a", "/workspace/v");
  assert.equal((await agent.readFile("/workspace/v/y.ts")).toString(), "2\n");
  await agent.chmod("/workspace/v", 0o711, { recursive: true });
  assert.equal((await agent.stat("/workspace/v/b/z.js")).mode, 0o711);
  await agent.mkdir("/workspace/p/q/r", { parents: true, mode: 0o700 });
  assert.equal((await agent.stat("/workspace/p/q/r")).mode, 0o700);
  await agent.remove("/workspace/v", { recursive: true });
  await fails(agent.stat("/workspace/v"), "not-found");
});

test("a directory of the read-only base can be moved", async () => {
  const name = (await agent.list("/usr")).find((f) => f.kind === "directory")?.path;
  assert.ok(name);
  const before = (await agent.list(name, { recursive: true })).length;
  await agent.move(name, "/workspace/moved");
  assert.equal((await agent.list("/workspace/moved", { recursive: true })).length, before);
  await fails(agent.stat(name), "not-found");
  await agent.move("/workspace/moved", name);
});

test("attributes of a prefix are set, told and replaced together, and go with what is moved", async () => {
  const [file, prefix] = ["/workspace/marked/file", "user.test."];
  const attributes = { [`${prefix}a`]: "1", [`${prefix}empty`]: "" };
  await agent.writeFile(file, Buffer.from("x"));
  await agent.mark(file, "user.other.", { "user.other.own": "stays" });
  await agent.mark(file, prefix, { [`${prefix}old`]: "goes" });
  await agent.mark(file, prefix, attributes);
  assert.deepEqual((await agent.stat(file, { attributes: prefix })).attributes, attributes);
  const listed = await agent.list("/workspace/marked", { attributes: prefix });
  assert.deepEqual(
    listed.map((each) => each.attributes),
    [attributes],
  );
  assert.equal((await agent.stat(file)).attributes, undefined);
  await shell(agent, "ln -s file /workspace/marked/link");
  await agent.mark("/workspace/marked/link", prefix, {});
  assert.equal((await agent.stat(file, { attributes: prefix })).attributes, undefined);
  assert.deepEqual((await agent.stat(file, { attributes: "user.other." })).attributes, { "user.other.own": "stays" });
  // A directory of the base is moved by copying.
  await agent.mark("/usr/share", prefix, attributes);
  await agent.move("/usr/share", "/workspace/share");
  assert.deepEqual((await agent.stat("/workspace/share", { attributes: prefix })).attributes, attributes);
  await agent.move("/workspace/share", "/usr/share");
  await agent.writeFile("/dev/shm/file", Buffer.from("x"));
  await fails(agent.mark("/dev/shm/file", prefix, attributes), "not-supported");
  await fails(agent.mark("/workspace/none", prefix, attributes), "not-found");
});

test("a tree deeper than a path may be is an error, not the end of the agent", async () => {
  await shell(
    agent,
    "mkdir /workspace/deep && cd /workspace/deep && for i in $(seq 450); do mkdir d && cd d || exit 0; done",
  );
  await assert.rejects(agent.list("/workspace/deep", { recursive: true }), StacyError);
  await agent.ping();
  await shell(agent, "rm -rf /workspace/deep");
});

test("a directory goes out and in as a tar stream", async () => {
  const long = "n".repeat(180);
  await shell(
    agent,
    `mkdir -p /workspace/tar/sub && cd /workspace/tar && echo one >one && ln -s one link && ln one hard && chmod 640 one && head -c 100000 /dev/zero >sub/zeros && echo long >${long} && chmod 555 sub`,
  );
  const out = await agent.tarOut("/workspace/tar");
  const parts: Buffer[] = [];
  for await (const chunk of out) parts.push(chunk as Buffer);
  const archive = Buffer.concat(parts);
  const seen = new Map<string, { type: string; size: number; link: string | undefined }>();
  const reader = extract();
  reader.end(archive);
  for await (const entry of reader) {
    let size = 0;
    for await (const chunk of entry) size += (chunk as Buffer).length;
    seen.set(entry.header.name.replace(/\/$/, ""), {
      type: entry.header.type ?? "",
      size,
      link: entry.header.linkname ?? undefined,
    });
  }
  assert.deepEqual([...seen.keys()].sort(), ["hard", "link", long, "one", "sub", "sub/zeros"].sort());
  assert.equal(seen.get("sub/zeros")?.size, 100_000);
  assert.equal(seen.get("link")?.link, "one");
  assert.deepEqual(["one", "hard"].map((n) => seen.get(n)?.type).sort(), ["file", "link"]);
  async function* source() {
    for (let at = 0; at < archive.length; at += 1000) yield archive.subarray(at, at + 1000);
  }
  await agent.tarIn("/workspace/untar", source());
  const result = await shell(
    agent,
    `cd /workspace/untar && cat one link hard ${long} && wc -c <sub/zeros && stat -c %a one sub && stat -c %h one`,
  );
  assert.equal(result, "one\none\none\nlong\n100000\n640\n555\n2\n");
});

test("what a tar stream makes has the times and modes that it had, whatever is made in a directory later", async () => {
  await shell(
    agent,
    `umask 0; mkdir -p /workspace/dated/inner && cd /workspace/dated && echo x >inner/file && mkfifo pipe && mknod null c 1 3 && ln -s nowhere link
chmod 666 pipe null; touch -h -d @978307200 link pipe null inner/file; touch -d @981 inner`,
  );
  await agent.tarIn("/workspace/redated", await agent.tarOut("/workspace/dated"));
  const look = "stat -c '%n %a %Y' * inner/*";
  const [was, is] = [
    await shell(agent, `cd /workspace/dated && ${look}`),
    await shell(agent, `cd /workspace/redated && ${look}`),
  ];
  assert.equal(is, was);
  assert.match(was, /^inner 777 981$/m);
  assert.match(was, /^null 666 978307200$/m);
  // A name that becomes another thing on the way is dated as that, and nothing outside is.
  const tar = pack();
  tar.entry({ name: "turned/", type: "directory", mtime: new Date(0) });
  tar.entry({ name: "away/", type: "directory", mtime: new Date(0) });
  tar.entry({ name: "away/file", mtime: new Date(0) }, "x");
  tar.finalize();
  await shell(agent, "mkdir -p /workspace/turning && ln -s /tmp /workspace/turning/turned");
  const before = (await agent.stat("/tmp")).mtimeMs;
  await fails(agent.tarIn("/workspace/turning", tar as AsyncIterable<Buffer>), "invalid");
  assert.equal((await agent.stat("/tmp")).mtimeMs, before);
});

test("holes stay holes: of a file that is written anew, and of one in an archive", async () => {
  const size = 16 << 20;
  const content = Buffer.alloc(size);
  content.write("begin");
  content.write("middle", 3_000_001);
  await agent.writeFile("/workspace/sparse/one", content);
  const tar = pack();
  tar.entry({ name: "two" }, content);
  tar.finalize();
  await agent.tarIn("/workspace/sparse", tar as AsyncIterable<Buffer>);
  const [one, two, same] = (
    await shell(
      agent,
      "cd /workspace/sparse && du -k one | cut -f1 && du -k two | cut -f1 && cmp one two && wc -c <two",
    )
  ).split("\n");
  assert.ok(Number(one) < 100 && Number(two) < 100, `${one} and ${two} KiB are taken`);
  assert.equal(Number(same), size);
  const read = await agent.readFile("/workspace/sparse/one", { offset: 3_000_000, length: 8 });
  assert.equal(read.toString(), "\0middle\0");
  await agent.copy("/workspace/sparse/one", "/workspace/sparse/three");
  assert.ok(Number(await shell(agent, "cd /workspace/sparse && cmp one three && du -k three | cut -f1")) < 100);
  // In place, zeros are written where something was.
  await agent.writeFile("/workspace/sparse/one", Buffer.alloc(8192), { offset: 0 });
  assert.equal((await agent.readFile("/workspace/sparse/one", { length: 5 })).toString("hex"), "00".repeat(5));
  await shell(agent, "rm -r /workspace/sparse");
});

test("a tar stream cannot leave its directory", async () => {
  const archive = async (entries: { name: string; type?: "symlink" | "file"; linkname?: string }[]) => {
    const tar = pack();
    for (const entry of entries) {
      if (entry.type === "symlink") tar.entry(entry);
      else tar.entry(entry, "evil");
    }
    tar.finalize();
    return tar as AsyncIterable<Buffer>;
  };
  await fails(agent.tarIn("/workspace/jail", await archive([{ name: "../evil" }])), "invalid");
  const through = [{ name: "out", type: "symlink" as const, linkname: "/tmp" }, { name: "out/evil" }];
  await fails(agent.tarIn("/workspace/jail", await archive(through)), "invalid");
  await shell(agent, "ln -s /tmp /workspace/jail/away");
  const directory = pack();
  directory.entry({ name: "away/", type: "directory" });
  directory.finalize();
  await assert.rejects(agent.tarIn("/workspace/jail", directory as AsyncIterable<Buffer>), {
    code: "invalid",
    message: /away leads out of the directory that the archive is unpacked in, by a link that is there/,
  });
  await fails(agent.stat("/tmp/evil"), "not-found");
  async function* garbage() {
    yield randomBytes(5000);
  }
  await fails(agent.tarIn("/workspace/jail", garbage()), "invalid");
});

/** Changes below a directory of /workspace, as text, up to that of a file `last`. It watches when the promise resolves. */
async function watching(dir: string): Promise<{ seen: Promise<string[]> }> {
  const abort = new AbortController();
  const events = agent.watch(`/workspace/${dir}`, { recursive: true, signal: abort.signal });
  // The first wait sends the call.
  let next = events[Symbol.asyncIterator]().next();
  await agent.ping();
  const seen = (async () => {
    const all: string[] = [];
    for (;;) {
      const item = await next;
      if (item.done) return all;
      const { change, path, to } = item.value;
      if (path.endsWith("/last")) break;
      all.push(`${change} ${path.slice(11)}${to === undefined ? "" : ` ${to.slice(11)}`}`);
      next = events[Symbol.asyncIterator]().next();
    }
    abort.abort();
    return all;
  })();
  // The directories are found by a thread of its own.
  await shell(agent, "sleep 0.2");
  return { seen };
}

test("changes are watched, recursively and through renames", async () => {
  await shell(agent, "mkdir -p /workspace/w/sub");
  const watch = await watching("w");
  await shell(
    agent,
    "cd /workspace/w && echo 1 >sub/a && mv sub/a sub/b && mkdir new && sleep 0.2 && echo 2 >new/c && rm new/c && touch last",
  );
  const seen = await watch.seen;
  for (const expected of [
    "create w/sub/a",
    "modify w/sub/a",
    "rename w/sub/a w/sub/b",
    "create w/new",
    "create w/new/c",
    "delete w/new/c",
  ])
    assert.ok(seen.includes(expected), `${expected} in ${JSON.stringify(seen)}`);
});

test("a file that is written whole is one change of it, without the name that it has meanwhile", async () => {
  await agent.mkdir("/workspace/whole");
  const { seen } = await watching("whole");
  async function* large() {
    for (let i = 0; i < 10; i++) yield randomBytes(100_000);
  }
  async function* broken() {
    yield randomBytes(200_000);
    throw new Error("the source failed");
  }
  await agent.writeFile("/workspace/whole/small", Buffer.from("1"), { mode: 0o600 });
  await agent.writeFile("/workspace/whole/small", Buffer.from("2"));
  await agent.writeFile("/workspace/whole/large", large());
  await agent.writeFile("/workspace/whole/large", large());
  await assert.rejects(agent.writeFile("/workspace/whole/large", broken()), /the source failed/);
  await shell(agent, "cd /workspace/whole && ln -s small link && mv small .stacyvm-new-small && rm .stacyvm-new-small");
  await agent.writeFile("/workspace/whole/link", Buffer.from("no link"), { follow: false });
  await agent.writeFile("/workspace/whole/last", Buffer.alloc(0));
  assert.deepEqual(await seen, [
    "create whole/small",
    "modify whole/small",
    "create whole/large",
    "modify whole/large",
    "create whole/link",
    "rename whole/small whole/.stacyvm-new-small",
    "delete whole/.stacyvm-new-small",
    "modify whole/link",
  ]);
});

test("a tunnel that is done with is no loss to a slow program: it gets all that was sent before the end", async () => {
  const program = "nc -l -p 8090 -e /bin/sh -c 'sleep 1; wc -c > /tmp/got'";
  const slow = await agent.start({ argv: ["/bin/sh", "-c", program] });
  await shell(agent, "until grep -q ':1F9A' /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done");
  const socket = await agent.tunnel(8090);
  socket.end(Buffer.alloc(500_000));
  await once(socket, "finish");
  socket.destroy();
  await slow.exited;
  assert.equal(await shell(agent, "cat /tmp/got"), "500000\n");
});

test("a tunnel carries bytes both ways and half-closes", async () => {
  const server = await agent.start({ argv: ["/bin/sh", "-c", "nc -l -p 8080 -e /bin/cat"] });
  await shell(
    agent,
    "for i in $(seq 100); do grep -q ':1F90' /proc/net/tcp /proc/net/tcp6 && exit 0; sleep 0.02; done; exit 1",
  );
  const socket = await agent.tunnel(8080);
  const data = randomBytes(1_000_000);
  const received: Buffer[] = [];
  const reading = (async () => {
    for await (const chunk of socket) received.push(chunk as Buffer);
  })();
  socket.end(data);
  await reading;
  assert.ok(Buffer.concat(received).equals(data));
  await server.exited;
  await fails(agent.tunnel(8081), "unavailable");
});

test("a full disk is an error to the caller, and the agent goes on", async () => {
  const block = randomBytes(1 << 20);
  async function* endless() {
    for (let i = 0; i < 2000; i++) yield block;
  }
  await fails(agent.writeFile("/workspace/huge", endless()), "no-space");
  await fails(agent.stat("/workspace/huge"), "not-found");
  await shell(agent, "cat /dev/zero >/workspace/fill; true").catch(() => {});
  assert.equal((await agent.exec({ argv: ["true"] })).exitCode, 0);
  await fails(agent.writeFile("/workspace/more", block), "no-space");
  await agent.remove("/workspace/fill");
  await agent.writeFile("/workspace/more", block);
});

test("figures of the guest", async () => {
  const info = await agent.info();
  assert.match(info.kernel, /^\d+\.\d+/);
  assert.equal(info.cpus, 1);
  assert.ok(info.memoryTotalBytes > 150e6 && info.memoryTotalBytes < 256 * 2 ** 20);
  assert.ok(info.diskTotalBytes > 200e6 && info.diskFreeBytes < info.diskTotalBytes);
  assert.ok(info.cpuNs > 0n && info.minorFaults > 0);
});

test("shutdown ends the machine in order", async () => {
  await agent.writeFile("/workspace/last", Buffer.from("words"));
  await agent.shutdown();
  await guest.exited;
});
