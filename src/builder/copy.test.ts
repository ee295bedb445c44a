import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { tar } from "../../test/images-support.ts";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { buildBase, type Layer } from "../images/base.ts";
import type { Image } from "../images/image.ts";
import { readTar } from "../images/tar.ts";
import { BuildContext } from "./context.ts";
import { type CopyStep, copyDigest, copyInto } from "./copy.ts";
import type { BuildFile, BuildFiles } from "./files.ts";
import { ImageFiles } from "./image-files.ts";

test("a copy sends files with their contents: named ones, those that links lead to, those of a directory, unpacked ones", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  async function* archive(): AsyncGenerator<Buffer> {
    yield tar([
      { path: "a", content: "first" },
      { path: "link", type: "2", link: "d/b" },
      { path: "d/b", content: "second" },
      { path: "packed.tgz", content: gzipSync(tar([{ path: "inner", content: "third" }])) },
    ]);
  }
  await using context = await BuildContext.ofTar(archive(), join(dir, "store"));
  const came: Record<string, string> = {};
  const agent = {
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async (entry, body) => {
        assert.equal(entry.uid, 0);
        came[join(path, entry.path)] = Buffer.concat(await Array.fromAsync(body)).toString();
      }),
  } as unknown as Agent;
  const copy = (sources: string[], to: string, more: Partial<CopyStep> = {}): Promise<void> =>
    copyInto(
      { kind: "copy", sources, to, text: "", line: 1, ...more },
      { agent, files: context, cwd: "/", scratch: dir, signal: undefined },
    );
  await copy(["a", "link"], "/x/");
  await copy(["link"], "/renamed");
  await copy(["d"], "/tree/");
  await copy(["packed.tgz"], "/unpacked/", { unpack: true });
  assert.deepEqual(came, {
    "/x/a": "first",
    "/x/link": "second",
    "/renamed": "second",
    "/tree/b": "second",
    "/unpacked/inner": "third",
  });
});

test("a destination that is a link in the image means what it leads to, there or not; a circle is an error with the line", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  await using context = await BuildContext.ofTar(
    (async function* () {
      yield tar([
        { path: "a", content: "a" },
        { path: "gone", type: "2", link: "nowhere" },
      ]);
    })(),
    join(dir, "store"),
  );
  const links: Record<string, string> = {
    "/link": "/real",
    "/over": "sub/there",
    "/sub/there": "../end",
    "/ring": "gnir",
    "/gnir": "/ring",
    "/to-root": "/",
  };
  const came: string[] = [];
  const agent = {
    stat: async (path: string, options: { follow?: boolean } = {}) => {
      const target = links[path];
      if (target === undefined || options.follow !== false) throw new StacyError("not-found", "there is no such file");
      return { kind: "symlink", target };
    },
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async (entry) => {
        came.push(join(path, entry.path));
      }),
  } as unknown as Agent;
  const copy = (to: string, source = "a"): Promise<void> =>
    copyInto(
      { kind: "copy", sources: [source], to, text: "", line: 7 },
      { agent, files: context, cwd: "/", scratch: dir, signal: undefined },
    );
  for (const to of ["/link", "/link/", "/over", "/to-root/", "/plain"]) await copy(to);
  assert.deepEqual(came, ["/real", "/real/a", "/end", "/a", "/plain"]);
  await assert.rejects(
    copy("/ring"),
    /^StacyError: line 7: \/ring is a link in the image that leads around in circles/,
  );
  await assert.rejects(
    copy("/x", "gone"),
    /line 7: gone is a link to nowhere, and the build's files have nothing there/,
  );
});

test("a source that is a link is copied as one where the step says so, wherever it leads", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  async function* archive(): AsyncGenerator<Buffer> {
    yield tar([
      { path: "f/nowhere", type: "2", link: "gone" },
      { path: "f/folder", type: "2", link: "d" },
      { path: "f/d/inner", type: "2", link: "../file" },
      { path: "f/file", content: "a file" },
    ]);
  }
  await using context = await BuildContext.ofTar(archive(), join(dir, "store"));
  const came: Record<string, unknown> = {};
  const agent = {
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async ({ type, path: name, link }) => {
        came[join(path, name)] = type === "symlink" ? link : type;
      }),
  } as unknown as Agent;
  const place = { agent, files: context, cwd: "/", scratch: dir, signal: undefined };
  const step = (source: string, to: string): CopyStep => ({ kind: "copy", sources: [source], to, text: "", line: 1 });
  await assert.rejects(copyInto(step("f/nowhere", "/x/"), place), { code: "not-found" });
  for (const [source, to] of [
    ["f/nowhere", "/x/named"],
    ["f/folder", "/x/"],
    ["f/folder/inner", "/x/"],
    ["f/file", "/x/"],
  ] as const)
    await copyInto({ ...step(source, to), links: true }, place);
  assert.deepEqual(came, { "/x/named": "gone", "/x/folder": "d", "/x/inner": "../file", "/x/file": "file" });
  const key = await copyDigest({ ...step("f/nowhere", "/x"), links: true }, context);
  assert.notEqual(key, await copyDigest({ ...step("f/folder", "/x"), links: true }, context));
});

test("of an image every file is copied: names of any bytes, pipes, devices, attributes of any bytes", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  const odd = (path: string): { path: string; pax: Record<string, Buffer> } => ({
    path: "odd",
    pax: { path: Buffer.from(path, "latin1") },
  });
  const layer: Layer = {
    whiteouts: true,
    async *open() {
      yield tar([
        { ...odd("z/caf\xe9"), content: "one" },
        { ...odd("z/caf\xe8"), content: "two" },
        { ...odd("z/d\xff/\xfc"), content: "three" },
        { path: "z/ü", content: "four" },
        { path: "z/link", type: "2", pax: { linkpath: Buffer.from("caf\xe9", "latin1") } },
        { path: "z/pipe", type: "6", mode: 0o666, uid: 5 },
        { path: "z/tty", type: "3", major: 4, minor: 300, mode: 0o620, uid: 1 },
        { path: "z/disk", type: "4", major: 259, minor: 70_000, gid: 6 },
        { path: "z/marked", content: "x", pax: { "SCHILY.xattr.user.note": Buffer.from([200, 0, 10]) } },
      ]);
    },
  };
  await buildBase(join(dir, "base"), [layer]);
  await using files = await ImageFiles.open({ base: join(dir, "base") } as Image, "files", undefined);
  let came: Record<string, unknown> = {};
  const agent = {
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async ({ path: name, type, uid, gid, mode, link, major, minor, xattrs }, body) => {
        const content = Buffer.concat(await Array.fromAsync(body)).toString();
        const more = [...(major === 0 ? [] : [major, minor]), ...xattrs.values()];
        came[join(path, name)] = [type, uid, gid, mode, content || link, ...more];
      }),
  } as unknown as Agent;
  const copied = async (source: string, to: string): Promise<Record<string, unknown>> => {
    came = {};
    const step: CopyStep = { kind: "copy", sources: [source], to, text: "", line: 1 };
    await copyInto(step, { agent, files, cwd: "/", scratch: dir, signal: undefined });
    return came;
  };
  assert.deepEqual(await copied("/z", "/frm/"), {
    "/frm/caf\xe9": ["file", 0, 0, 0o644, "one"],
    "/frm/caf\xe8": ["file", 0, 0, 0o644, "two"],
    "/frm/d\xff": ["directory", 0, 0, 0o755, ""],
    "/frm/d\xff/\xfc": ["file", 0, 0, 0o644, "three"],
    [`/frm/${Buffer.from("ü").toString("latin1")}`]: ["file", 0, 0, 0o644, "four"],
    "/frm/link": ["symlink", 0, 0, 0o777, "caf\xe9"],
    "/frm/pipe": ["fifo", 5, 0, 0o666, ""],
    "/frm/tty": ["character", 1, 0, 0o620, "", 4, 300],
    "/frm/disk": ["block", 0, 6, 0o644, "", 259, 70_000],
    "/frm/marked": ["file", 0, 0, 0o644, "x", Buffer.from([200, 0, 10])],
  });
  assert.deepEqual(await copied("/z/pipe", "/frm/"), { "/frm/pipe": ["fifo", 5, 0, 0o666, ""] });
  assert.deepEqual(await copied("/z/link", "/x"), { "/x": ["file", 0, 0, 0o644, "one"] });
  assert.deepEqual(Object.keys(await copied("/z/ca*?", "/frm/")), ["/frm/caf\xe8", "/frm/caf\xe9"]);
});

test("times before 1970 and after 2242 come over, of the build's files and of an image's", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  const times = { k: -315_619_200, first: -2_147_483_648, late: 10_000_000_000 };
  const members = Object.entries(times).map(([path, time]) => ({
    ...{ path, content: path },
    pax: { mtime: String(time) },
  }));
  async function* archive(): AsyncGenerator<Buffer> {
    yield tar(members);
  }
  await buildBase(join(dir, "base"), [{ whiteouts: true, open: archive }]);
  await using image = await ImageFiles.open({ base: join(dir, "base") } as Image, "files", undefined);
  await using context = await BuildContext.ofTar(archive(), join(dir, "store"));
  for (const files of [context, image]) {
    const came: Record<string, number> = {};
    const agent = {
      stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
      tarIn: (_path: string, sent: AsyncIterable<Uint8Array>) =>
        readTar(sent, async ({ path, mtime }) => {
          came[path] = mtime;
        }),
    } as unknown as Agent;
    const step: CopyStep = { kind: "copy", sources: ["."], to: "/x/", text: "", line: 1 };
    await copyInto(step, { agent, files, cwd: "/", scratch: dir, signal: undefined });
    assert.deepEqual(came, times);
  }
});

test("what cannot be packed fails the copy, and nothing else", async () => {
  const attribute = new Map([["user.a=b", Buffer.from([200])]]);
  const owned = { mode: 0o644, uid: 0, gid: 0, mtime: 0 } as const;
  const common = { ...owned, type: "file", target: "", size: 1, major: 0, minor: 0 } as const;
  const file: BuildFile = { ...common, path: "a", xattrs: attribute, bytes: () => Readable.from([Buffer.from("x")]) };
  const files: BuildFiles = {
    name: "files",
    get: (path) => (path === "a" ? file : undefined),
    names: async () => ["a"],
  };
  const agent = {
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    // As a guest's: it is read only after it has been asked.
    tarIn: async (_path: string, sent: AsyncIterable<Uint8Array>, { signal }: { signal?: AbortSignal }) => {
      await new Promise((wake) => setTimeout(wake, 20));
      signal?.throwIfAborted();
      await Array.fromAsync(sent);
    },
  } as unknown as Agent;
  const step: CopyStep = { kind: "copy", sources: ["a"], to: "/x/", text: "", line: 3 };
  const place = { agent, files, cwd: "/", scratch: tmpdir(), signal: undefined };
  await assert.rejects(copyInto(step, place), { code: "not-supported", message: /line 3/ });
  const deletes: BuildFiles = {
    name: "files",
    get: (path) => ({ ...file, xattrs: new Map(), path, type: path === "d" ? "directory" : "file" }),
    names: async (path) => (path === "" ? ["d"] : [".wh.gone"]),
  };
  await assert.rejects(copyInto({ ...step, sources: ["d"] }, { ...place, files: deletes }), {
    code: "not-supported",
    message: /line 3: d\/\.wh\.gone/,
  });
  const full = {
    ...agent,
    tarIn: async (_path: string, sent: AsyncIterable<Uint8Array>) => {
      for await (const _ of sent) throw new StacyError("no-space", "the disk is full");
    },
  } as unknown as Agent;
  const large = { ...file, size: 1 << 20, xattrs: new Map(), bytes: () => Readable.from([Buffer.alloc(1 << 20)]) };
  const one = { ...files, get: () => large };
  await assert.rejects(copyInto(step, { ...place, agent: full, files: one }), { code: "no-space" });
});

test("directories that a copy makes belong to whom the step says, those that are there stay as they are", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "copy-"));
  t.after(() => rm(dir, { recursive: true }));
  async function* archive(): AsyncGenerator<Buffer> {
    yield tar([
      { path: "d/f", content: "x" },
      { path: "packed.tgz", content: gzipSync(tar([{ path: "inner", content: "third" }])) },
    ]);
  }
  await using context = await BuildContext.ofTar(archive(), join(dir, "store"));
  const there = new Set(["/", "/srv"]);
  let came: unknown[] = [];
  const agent = {
    stat: async (path: string) => {
      if (!there.has(path)) throw new StacyError("not-found", "there is no such file");
      return { kind: "directory" };
    },
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async ({ type, path: name, mode, uid, gid }) => {
        came.push([join(path, name), type, mode, uid, gid]);
      }),
  } as unknown as Agent;
  const copied = async (source: string, to: string, more: Partial<CopyStep>): Promise<unknown[]> => {
    came = [];
    const step: CopyStep = { kind: "copy", sources: [source], to, text: "", line: 1, ...more };
    await copyInto(step, { agent, files: context, cwd: "/", scratch: dir, signal: undefined });
    return came;
  };
  const owned = { owner: "1000:1001" };
  const made = (path: string): unknown[] => [path, "directory", 0o755, 1000, 1001];
  const file = (path: string): unknown[] => [path, "file", 0o644, 1000, 1001];
  assert.deepEqual(await copied("d", "/app", owned), [made("/app"), file("/app/f")]);
  const deep = [made("/srv/new"), made("/srv/new/deep")];
  assert.deepEqual(await copied("d/f", "/srv/new/deep/", owned), [...deep, file("/srv/new/deep/f")]);
  assert.deepEqual(await copied("d/f", "/srv/new/deep/g", owned), [...deep, file("/srv/new/deep/g")]);
  assert.deepEqual(await copied("d", "/srv", owned), [file("/srv/f")]);
  assert.deepEqual(await copied("d", "/", owned), [file("/f")]);
  const unpacked = await copied("packed.tgz", "/srv/new/", { ...owned, unpack: true });
  assert.deepEqual(unpacked, [made("/srv/new"), ["/srv/new/inner", "file", 0o644, 0, 0]]);
  const changed = await copied("d", "/srv", { mode: "u+x,go=" });
  assert.deepEqual(changed, [["/srv/f", "file", 0o700, 0, 0]]);
  // Without an owner the guest makes them.
  assert.deepEqual(await copied("d", "/app", {}), [["/app/f", "file", 0o644, 0, 0]]);
});
