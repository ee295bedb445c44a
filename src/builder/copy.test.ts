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
import { readTar } from "../images/tar.ts";
import { BuildContext } from "./context.ts";
import { type CopyStep, copyDigest, copyInto } from "./copy.ts";
import type { BuildFile, BuildFiles } from "./files.ts";

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

test("what cannot be packed fails the copy, and nothing else", async () => {
  const attribute = new Map([["user.bytes", Buffer.from([200])]]);
  const common = { type: "file", mode: 0o644, uid: 0, gid: 0, mtime: 0, target: "", size: 1 } as const;
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
  // Without an owner the guest makes them.
  assert.deepEqual(await copied("d", "/app", {}), [["/app/f", "file", 0o644, 0, 0]]);
});
