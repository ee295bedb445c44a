/** Archives on this host and registries that are made to do harm, through the library as it is used. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { tar } from "../../test/images-support.ts";
import { dataPaths } from "../host/paths.ts";
import type { ImageLibrary } from "./image.ts";
import { hostArchitecture } from "./oci/documents.ts";
import { createImages } from "./store.ts";

const MIB = 2 ** 20;

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "hostile-sources-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const paths = () => dataPaths(join(dir, "data"));
const images = (bytes?: number): ImageLibrary =>
  createImages(paths(), { ...(bytes === undefined ? {} : { limits: { bytes } }), credentialFiles: [] });
const digestOf = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Everything that a registry has of an image of one layer. */
function imageOf(layer: Buffer, diffId = digestOf(layer), more: object = {}) {
  const said = { architecture: hostArchitecture, os: "linux", rootfs: { diff_ids: [diffId] }, ...more };
  const config = Buffer.from(JSON.stringify(said));
  const named = (bytes: Buffer) => ({
    mediaType: "application/octet-stream",
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config: named(config), layers: [named(layer)] }));
  return { manifest, blobs: [config, layer] };
}

async function dockerSave(config: Buffer, layers: Buffer[]): Promise<string> {
  const path = join(dir, "saved.tar");
  const names = layers.map((_, i) => `layer${i}.tar`);
  const list = [{ Config: "config.json", RepoTags: ["x:1"], Layers: names }];
  const members = layers.map((content, i) => ({ path: names[i] ?? "", content }));
  await writeFile(
    path,
    tar([
      { path: "manifest.json", content: JSON.stringify(list) },
      { path: "config.json", content: config },
      ...members,
    ]),
  );
  return path;
}

describe("archives of `docker save`", () => {
  test("the digest of an image is the one of a configuration that says what its layers hold", async () => {
    const evil = tar([{ path: "marker", content: "EVIL" }]);
    const { manifest } = imageOf(tar([{ path: "marker", content: "GOOD" }]));
    // A registry's manifest, which anybody may read, reads as a configuration, too.
    for (const layers of [[evil], [evil, evil]]) {
      const source = await dockerSave(manifest, layers);
      await assert.rejects(images().import(source, "harmless:1"), { code: "corrupt", message: /names none/ });
    }
    assert.equal(await images().has(digestOf(manifest)), false);
    const [config = Buffer.alloc(0)] = imageOf(evil).blobs;
    const made = await images().import(await dockerSave(config, [evil]), "harmless:1");
    // Not of anything that a registry could have as a manifest.
    assert.notEqual(made.digest, digestOf(config));
    assert.equal((await images().import(await dockerSave(config, [evil]), "again:1")).digest, made.digest);
    const other = tar([{ path: "marker", content: "OTHER" }]);
    await assert.rejects(images().import(await dockerSave(config, [other]), "x:1"), { code: "corrupt" });
    await assert.rejects(images().import(await dockerSave(config, [evil, evil]), "x:1"), { code: "corrupt" });
  });

  test("members that are far larger than their archive: refused before they are on the disk", async () => {
    const path = join(dir, "holes.tgz");
    const holes = { "GNU.sparse.size": String(2 ** 40) };
    await writeFile(
      path,
      gzipSync(
        tar([
          { path: "manifest.json", content: "[]" },
          { path: "x", pax: holes },
        ]),
      ),
    );
    await assert.rejects(images(MIB).import(path, "x:1"), { code: "limit", message: /longer than what it may hold/ });
    const zeros = join(dir, "zeros.tgz");
    const member = tar([{ path: "manifest.json", content: Buffer.alloc(100 * MIB) }]);
    await writeFile(zeros, gzipSync(member, { level: 1 }));
    await assert.rejects(images(MIB).import(zeros, "x:1"), { code: "limit", message: /longer than what it may hold/ });
  });
});

test("a layout's documents and layers are files, also where links lead to them", async () => {
  const layer = tar([{ path: "x", content: "x" }]);
  const { manifest, blobs } = imageOf(layer);
  const layout = join(dir, "layout");
  const named = (bytes: Buffer): string => join(layout, "blobs/sha256", digestOf(bytes).slice("sha256:".length));
  await mkdir(join(layout, "blobs/sha256"), { recursive: true });
  await writeFile(join(layout, "oci-layout"), "{}");
  const index = JSON.stringify({ manifests: [{ digest: digestOf(manifest), size: manifest.length }] });
  await writeFile(join(dir, "index"), index);
  await symlink(join(dir, "index"), join(layout, "index.json"));
  for (const bytes of [manifest, ...blobs]) await writeFile(named(bytes), bytes);
  assert.equal((await images().import(layout, "sound:1")).digest, digestOf(manifest));
  for (const path of [join(layout, "index.json"), named(layer)]) {
    await rm(path);
    await symlink("/dev/zero", path);
    await assert.rejects(images().import(layout, "x:1"), { code: "corrupt", message: /is no file/ });
    await rm(path);
    await writeFile(path, index);
  }
});

describe("a registry", () => {
  let server: Server;
  let has = imageOf(Buffer.alloc(0));
  const asked: string[] = [];
  before(async () => {
    server = createServer((request, response) => {
      const { url = "" } = request;
      asked.push(url);
      const found = url.includes("/manifests/")
        ? has.manifest
        : has.blobs.find((blob) => url.endsWith(`/blobs/${digestOf(blob)}`));
      if (found === undefined) response.writeHead(url === "/v2/" ? 200 : 404).end();
      else response.writeHead(200, { "content-length": found.length }).end(found);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  const pull = (library: ImageLibrary): Promise<unknown> =>
    library.resolve(`127.0.0.1:${(server.address() as AddressInfo).port}/lib/x:1`);
  const kept = (): Promise<string[]> => readdir(join(paths().images, "blobs")).catch(() => []);

  test("layers that are larger than an image may be are not fetched", async () => {
    has = imageOf(randomBytes(80 * MIB));
    asked.length = 0;
    await assert.rejects(pull(images(MIB)), { code: "limit" });
    assert.deepEqual(
      asked.filter((url) => url.includes("/blobs/")),
      [],
    );
    assert.deepEqual(await kept(), []);
  });

  test("of an image that is refused for what it holds nothing is kept; of a sound one its blobs are", async () => {
    const climbing = tar([{ path: "../victim", content: "x" }]);
    const large = gzipSync(tar([{ path: "large", content: Buffer.alloc(3 * MIB) }]));
    for (const [layer, diffId] of [
      [climbing, undefined],
      [large, undefined],
      [tar([{ path: "x", content: "x" }]), digestOf(Buffer.from("another"))],
    ] as const) {
      has = imageOf(layer, diffId);
      await assert.rejects(pull(images(MIB)), /unsound entry|more than is allowed|configuration says/);
      assert.deepEqual(await kept(), []);
    }
    const sound = tar([{ path: "x", content: "x" }]);
    for (const config of [{ architecture: "other" }, { rootfs: {} }, { rootfs: { diff_ids: [1] } }]) {
      has = imageOf(sound, digestOf(sound), config);
      await assert.rejects(pull(images(MIB)), /is for linux\/other|names none|unsound/);
      assert.deepEqual(await kept(), []);
    }
    has = imageOf(sound);
    await pull(images(MIB));
    assert.equal((await kept()).length, 2);
  });

  test("what lies in a layer and is no file of the image counts, too", async () => {
    const member = tar([{ path: "label", type: "V", content: Buffer.alloc(100 * MIB) }]);
    const rest = Buffer.concat([tar([{ path: "x", content: "x" }]), Buffer.alloc(100 * MIB)]);
    for (const layer of [member, rest]) {
      has = imageOf(gzipSync(layer, { level: 1 }), digestOf(layer));
      await assert.rejects(pull(images(MIB)), { code: "limit", message: /longer than what it may hold/ });
    }
  });
});
