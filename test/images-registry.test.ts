/** Pulls from a real registry, compared with what umoci unpacks; and everything that can go wrong on the way. */
import assert from "node:assert/strict";
import { createPrivateKey, createSign, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gunzipSync, zstdCompressSync } from "node:zlib";
import { StacyError } from "../src/host/error.ts";
import { dataPaths } from "../src/host/paths.ts";
import type { Image, Progress } from "../src/images/image.ts";
import { createImages, type ImagesOptions } from "../src/images/store.ts";
import {
  faultProxy,
  forward,
  freePort,
  listTree,
  type Member,
  mountBase,
  mountProblem,
  push,
  type Registry,
  recompress,
  run,
  scratch,
  startRegistry,
  tar,
  umociImage,
} from "./images-support.ts";

const QUICK = { retry: { tries: 4, firstDelayMs: 5 }, idleMs: 2000 };
const CAPABILITY = Buffer.from("0100000200ff000000000000000000000000f080", "hex").subarray(0, 20);
const BIG = randomBytes(5 << 20);

const lower: Member[] = [
  { path: "./", type: "5", mode: 0o755 },
  { path: "bin/", type: "5", mode: 0o755 },
  { path: "bin/tool", content: "#!/bin/sh\n", mode: 0o4755 },
  { path: "bin/group", content: "g", mode: 0o2711, uid: 7, gid: 9 },
  { path: "bin/alias", type: "1", link: "bin/tool" },
  { path: "lib", type: "2", link: "usr/lib" },
  { path: "usr/lib/", type: "5", mode: 0o755 },
  { path: "usr/lib/big", content: BIG },
  { path: "usr/lib/end", content: Buffer.concat([BIG.subarray(0, 4096 + 2047)]) },
  { path: "usr/lib/long-end", content: BIG.subarray(0, 4096 * 3 + 2050) },
  { path: "usr/lib/exact", content: BIG.subarray(0, 8192) },
  { path: "usr/lib/zeros", content: Buffer.alloc(3 << 20) },
  { path: "usr/lib/empty", content: "" },
  { path: "opaque/", type: "5", mode: 0o700, uid: 1000, gid: 1000 },
  { path: "opaque/old", content: "old" },
  { path: "opaque/sub/", type: "5", mode: 0o755 },
  { path: "opaque/sub/old", content: "old" },
  { path: "gone/", type: "5", mode: 0o755 },
  { path: "gone/deep/", type: "5", mode: 0o755 },
  { path: "gone/deep/file", content: "x" },
  { path: "kept/", type: "5", mode: 0o755 },
  { path: "kept/removed", content: "x" },
  { path: "kept/stays", content: "stays" },
  { path: "becomes-dir", content: "file" },
  { path: "becomes-file/", type: "5", mode: 0o755 },
  { path: "becomes-file/inner", content: "x" },
  { path: "pipe", type: "6", mode: 0o622 },
  { path: "tmp/", type: "5", mode: 0o1777 },
  { path: `${"long/".repeat(30)}name`, content: "long" },
  { path: "x".repeat(255), content: "255" },
  { path: "umlaut-ä-日本", content: "utf8" },
  { path: "link-long", type: "2", link: "y".repeat(1000) },
  {
    path: "capable",
    content: "cap",
    mode: 0o755,
    pax: { "SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.note": Buffer.from([0xff, 0, 0x80, 10]) },
  },
];
const upper: Member[] = [
  { path: "opaque/", type: "5", mode: 0o750, uid: 1000, gid: 1000 },
  { path: "opaque/.wh..wh..opq", content: "" },
  { path: "opaque/new", content: "new" },
  { path: ".wh.gone", content: "" },
  { path: "kept/.wh.removed", content: "" },
  { path: "becomes-dir/", type: "5", mode: 0o711 },
  { path: "becomes-dir/inner", content: "in" },
  { path: ".wh.becomes-file", content: "" },
  { path: "becomes-file", content: "now a file" },
  { path: "usr/lib/added", content: "added", mtime: 1_600_000_001 },
  { path: "bin/tool", content: "replaced", mode: 0o755 },
];
const top: Member[] = [
  { path: "usr/lib/added-later", type: "1", link: "usr/lib/added" },
  { path: "etc/passwd", content: "root:x:0:0::/:/bin/sh\n" },
];
const CONFIG = [
  ...["--config.env", "PATH=/bin", "--config.env", "GREETING=a b=c", "--config.workingdir", "/usr/lib"],
  ...["--config.user", "1000:1000", "--config.entrypoint", "/bin/tool", "--config.cmd", "--flag"],
  ...["--config.label", "team=blue", "--config.stopsignal", "SIGQUIT", "--config.exposedports", "80/tcp"],
];

let work: Awaited<ReturnType<typeof scratch>>;
let registry: Registry;
let layout: string;

before(async () => {
  work = await scratch();
  layout = join(work.path, "layout");
  registry = await startRegistry(join(work.path, "open"));
  await umociImage(layout, "one", [tar(lower)]);
  await umociImage(layout, "three", [tar(lower), tar(upper), tar(top)], CONFIG);
  await push(layout, "one", `${registry.host}/team/one:1`);
  await push(layout, "three", `${registry.host}/team/three:1`);
  await recompress(layout, "three", "zstd", (layer) => zstdCompressSync(gunzipSync(layer)), "zstd");
  await recompress(layout, "three", "plain", (layer) => gunzipSync(layer));
  await push(layout, "zstd", `${registry.host}/team/zstd:1`);
  await push(layout, "plain", `${registry.host}/team/plain:1`);
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await work[Symbol.asyncDispose]();
});

let stores = 0;
function store(options: ImagesOptions = {}) {
  const paths = dataPaths(join(work.path, `data-${stores++}`));
  return { paths, images: createImages(paths, { credentialFiles: [], network: QUICK, ...options }) };
}

/** Half-made things: nothing may be in the temporary directory, and no unfinished blob among the blobs. */
async function assertNothingLeft(paths: ReturnType<typeof dataPaths>): Promise<void> {
  assert.deepEqual(await readdir(paths.tmp).catch(() => []), []);
  const blobs = await readdir(join(paths.images, "blobs")).catch(() => []);
  assert.deepEqual(
    blobs.filter((name) => !/^[0-9a-f]{64}$/.test(name)),
    [],
  );
}

async function failsWith(code: string, words: RegExp, promise: Promise<unknown>): Promise<StacyError> {
  const error = await promise.then(
    () => assert.fail(`expected ${code}`),
    (thrown) => thrown,
  );
  assert.ok(error instanceof StacyError, String(error?.stack ?? error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, words);
  return error;
}

async function assertSameAsUmoci(t: { skip(why: string): void }, image: Image, tag: string): Promise<void> {
  const problem = await mountProblem();
  if (problem !== undefined) return t.skip(problem);
  const bundle = join(work.path, `bundle-${stores++}`);
  await run("umoci", ["unpack", "--image", `${layout}:${tag}`, bundle]);
  const at = join(work.path, `mnt-${stores++}`);
  await using _mounted = await mountBase(image.base, at);
  const [ours, theirs] = await Promise.all([listTree(at), listTree(join(bundle, "rootfs"))]);
  assert.deepEqual([...ours.keys()], [...theirs.keys()]);
  for (const [path, entry] of theirs) assert.deepEqual(ours.get(path), entry, path);
}

describe("pulling", () => {
  test("one layer: every path, mode, owner, target, attribute and byte as umoci unpacks it", async (t) => {
    const { images, paths } = store();
    const image = await images.resolve(`${registry.host}/team/one:1`);
    await assertSameAsUmoci(t, image, "one");
    await run("fsck.erofs", [image.base]);
    await assertNothingLeft(paths);
  });

  test("three layers with whiteouts, an opaque directory, replaced types and links between layers", async (t) => {
    const { images } = store();
    await assertSameAsUmoci(t, await images.resolve(`${registry.host}/team/three:1`), "three");
  });

  test("zstd and plain layers give the same base as gzip", async () => {
    const { images, paths } = store();
    const gzip = await images.resolve(`${registry.host}/team/three:1`);
    for (const kind of ["zstd", "plain"]) {
      const other = await images.resolve(`${registry.host}/team/${kind}:1`);
      assert.notEqual(other.digest, gzip.digest, "the fixture is not what it should be");
      assert.ok((await readFile(other.base)).equals(await readFile(gzip.base)), kind);
    }
    await assertNothingLeft(paths);
  });

  test("the image's configuration is kept", async () => {
    const { images } = store();
    const { config } = await images.resolve(`${registry.host}/team/three:1`);
    assert.deepEqual(config, {
      env: ["PATH=/bin", "GREETING=a b=c"],
      cwd: "/usr/lib",
      user: "1000:1000",
      entrypoint: ["/bin/tool"],
      cmd: ["--flag"],
      labels: { team: "blue" },
      stopSignal: "SIGQUIT",
      exposedPorts: ["80/tcp"],
    });
  });

  test("layers that another image brought are not fetched again; progress ends at its total", async () => {
    await using proxy = await faultProxy(registry.port, () => false);
    const { images } = store();
    const steps: Progress[] = [];
    await images.resolve(`${proxy.host}/team/one:1`, { progress: (step) => steps.push(step) });
    const pulls = steps.filter(({ step }) => step.startsWith("pulling"));
    assert.equal(pulls.at(-1)?.done, pulls.at(-1)?.total);
    assert.ok((pulls.at(-1)?.total ?? 0) > BIG.length);
    const before = proxy.seen.filter((line) => line.includes("/blobs/")).length;
    await images.resolve(`${proxy.host}/team/three:1`);
    const fetched = proxy.seen.filter((line) => line.includes("/blobs/")).length - before;
    assert.equal(fetched, 3, "a configuration and two layers are new");
  });

  test("many callers and two stores at once pull once", async () => {
    await using proxy = await faultProxy(registry.port, () => false);
    const { images, paths } = store();
    const other = createImages(paths, { credentialFiles: [], network: QUICK });
    const name = `${proxy.host}/team/three:1`;
    const all = await Promise.all([1, 2, 3, 4].flatMap(() => [images.resolve(name), other.resolve(name)]));
    assert.equal(new Set(all.map(({ digest }) => digest)).size, 1);
    assert.equal(proxy.seen.filter((line) => line.includes("/blobs/")).length, 4);
  });

  test("few pulls at a time, and one owner's many keep nobody waiting", async () => {
    const asked: string[] = [];
    const held = new Map<string, () => unknown>();
    let free = false;
    let seen = Promise.withResolvers<void>();
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      const name = /^\/v2\/(.*)\/manifests\//.exec(incoming.url ?? "")?.[1];
      if (name === undefined) return false;
      asked.push(name);
      const end = (): unknown => response.writableEnded || response.writeHead(404).end();
      if (free) end();
      else held.set(name, end);
      seen.resolve();
      return true;
    });
    const askedFor = async (count: number): Promise<number> => {
      while (asked.length < count) {
        await seen.promise;
        seen = Promise.withResolvers();
      }
      return asked.filter((name) => name.startsWith("a/")).length;
    };
    const { images } = store();
    const steps: string[] = [];
    const pull = (name: string): Promise<unknown> =>
      images
        .of({ name: "other", party: name.slice(0, 1) })
        .resolve(`${proxy.host}/${name}:1`, { progress: ({ step }) => steps.push(step) })
        .catch((error: StacyError) => error.code);
    const all = ["a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "b/1", "c/1", "d/1"].map(pull);
    assert.equal(await askedFor(4), 2, asked.join(" "));
    assert.ok(steps.includes("waiting for other pulls (1 of yours)"), steps.join("\n"));
    held.get(asked.find((name) => !name.startsWith("a/")) ?? "")?.();
    assert.equal(await askedFor(5), 2, asked.join(" "));
    free = true;
    for (const end of held.values()) end();
    assert.deepEqual(new Set(await Promise.all(all)), new Set(["not-found"]));
    assert.equal(asked.length, 9);
  });

  test("a moved tag is seen by `pull: always` only, and an unchanged one is not fetched again", async () => {
    await using proxy = await faultProxy(registry.port, () => false);
    const { images } = store();
    const name = `${proxy.host}/team/moving:1`;
    await push(layout, "one", `${registry.host}/team/moving:1`);
    const first = await images.resolve(name);
    await images.resolve(name, { pull: "always" });
    const blobs = () => proxy.seen.filter((line) => line.includes("/blobs/")).length;
    assert.equal(blobs(), 2);
    await push(layout, "three", `${registry.host}/team/moving:1`);
    assert.equal((await images.resolve(name)).digest, first.digest);
    const second = await images.resolve(name, { pull: "always" });
    assert.notEqual(second.digest, first.digest);
    assert.equal((await images.resolve(name)).digest, second.digest);
    assert.equal((await images.resolve(first.digest)).base, first.base, "the old base stays for those who use it");
    assert.equal((await images.resolve(`${proxy.host}/team/moving@${first.digest}`)).digest, first.digest);
  });

  test("out of a manifest list the version for this host is taken, and its lack is named", async () => {
    const { images } = store();
    const raw = await run("skopeo", ["inspect", "--raw", "--tls-verify=false", `docker://${registry.host}/team/one:1`]);
    const put = async (tag: string, os: string): Promise<void> => {
      const digest = (
        await run("skopeo", [
          "inspect",
          "--tls-verify=false",
          "--format",
          "{{.Digest}}",
          `docker://${registry.host}/team/one:1`,
        ])
      ).stdout.trim();
      const entry = {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        digest,
        size: Buffer.byteLength(raw.stdout),
      };
      const manifests = [
        { ...entry, platform: { os: "windows", architecture: "amd64" } },
        { ...entry, platform: { os, architecture: process.arch === "x64" ? "amd64" : process.arch } },
      ];
      const mediaType = "application/vnd.oci.image.index.v1+json";
      const answer = await fetch(`http://${registry.host}/v2/team/one/manifests/${tag}`, {
        method: "PUT",
        headers: { "content-type": mediaType },
        body: JSON.stringify({ schemaVersion: 2, mediaType, manifests }),
      });
      assert.equal(answer.status, 201, await answer.text());
    };
    await put("list", "linux");
    await put("others", "plan9");
    const direct = await images.resolve(`${registry.host}/team/one:1`);
    assert.equal((await images.resolve(`${registry.host}/team/one:list`)).digest, direct.digest);
    await failsWith("not-supported", /windows\/amd64, plan9/, images.resolve(`${registry.host}/team/one:others`));
  });

  test("an alias stands for another name; policy and offline mode hold", async () => {
    const { images, paths } = store({ aliases: { "alpine:latest": `${registry.host}/team/one:1` } });
    const image = await images.resolve("alpine");
    assert.equal(image.reference, `${registry.host}/team/one:1`);
    const guarded = createImages(paths, { policy: { allow: ["**/team/*"], deny: ["**/team/three:*"] } });
    await guarded.resolve(`${registry.host}/team/one:1`);
    await failsWith("permission", /not allowed/, guarded.resolve(`${registry.host}/team/three:1`));
    await failsWith("permission", /not allowed/, guarded.resolve("python:3.12"));
    const offline = createImages(paths, { offline: true });
    assert.equal((await offline.resolve(`${registry.host}/team/one:1`)).digest, image.digest);
    await failsWith("not-found", /not on this host/, offline.resolve(`${registry.host}/team/three:1`));
  });
});

describe("credentials", () => {
  const BCRYPT_SESAME = "$2b$05$UnrgSe/Pt5UOKBxvn8pYtOfVrhVrOi8DkLlL/Sdl6eMxZKjbn9xd2";

  test("basic, from Docker's configuration; wrong and missing ones are named", async () => {
    const dir = join(work.path, "basic");
    await using guarded = await startRegistry(dir, { basic: `user:${BCRYPT_SESAME}\n` });
    await push(layout, "one", `${guarded.host}/team/one:1`, ["--dest-creds", "user:sesame"]);
    const file = async (password: string): Promise<string> => {
      const path = join(dir, `${password}.json`);
      const auth = Buffer.from(`user:${password}`).toString("base64");
      await writeFile(path, JSON.stringify({ auths: { [guarded.host]: { auth } } }));
      return path;
    };
    const name = `${guarded.host}/team/one:1`;
    const none = await failsWith("permission", /refuses access/, store().images.resolve(name));
    assert.match(none.remedy ?? "", /docker login/);
    const wrong = store({ credentialFiles: [await file("wrong")] });
    const denied = await failsWith("permission", /with the credentials we have/, wrong.images.resolve(name));
    assert.ok(!denied.message.includes("wrong"), "the password must not be shown");
    await store({ credentialFiles: [await file("sesame")] }).images.resolve(name);
    await store({ registries: { [guarded.host]: { username: "user", password: "sesame" } } }).images.resolve(name);
  });

  test("of who asks: the registry says each time whether they hold, a mirror is told nothing, and the image is that owner's alone", async () => {
    const dir = join(work.path, "of-who-asks");
    await using guarded = await startRegistry(dir, { basic: `user:${BCRYPT_SESAME}\n` });
    const name = `${guarded.host}/team/private:1`;
    await push(layout, "one", name, ["--dest-creds", "user:sesame"]);
    const mirrored = { [guarded.host]: { endpoint: `http://${registry.host}/cache` } };
    const { images } = store({ registries: mirrored });
    const [alice, bob] = [images.of({ name: "alice" }), images.of({ name: "bob" })];
    const credentials = { username: "user", password: "sesame" };
    const wrong = { username: "user", password: "wrong" };
    const denied = await failsWith("permission", /with the credentials/, alice.resolve(name, { credentials: wrong }));
    assert.ok(!JSON.stringify(denied).includes("wrong"), "the password must not be shown");
    const [one, again] = await Promise.all([1, 2].map(() => alice.resolve(name, { credentials })));
    assert.deepEqual([one?.owner, one?.reference, again?.digest], ["alice", name, one?.digest]);
    assert.equal((await alice.resolve(name, { pull: "never" })).digest, one?.digest);
    await failsWith("not-found", /not on this host/, bob.resolve(name, { pull: "never" }));
    await failsWith("not-found", /not on this host/, bob.resolve(one?.digest ?? "", { pull: "never" }));
    await failsWith("permission", /with the credentials/, bob.resolve(name, { credentials: wrong }));
    assert.equal((await bob.resolve(name, { credentials })).owner, "bob");
    await failsWith("invalid", /nothing that an owner/, images.resolve(name, { credentials }));
    await failsWith("invalid", /nothing that an owner/, alice.resolve("stacyvm/busybox", { credentials }));
  });

  test("a mirror: its path before the image's name, its own credentials, and the image under the name that was asked for", async () => {
    await push(layout, "one", `${registry.host}/cache/library/mirrored:1`);
    const seen = new Set<string | undefined>();
    await using mirror = await faultProxy(registry.port, (incoming, response) => {
      seen.add(incoming.headers.authorization);
      if (incoming.headers.authorization !== undefined) return false;
      response.writeHead(401, { "www-authenticate": 'Basic realm="mirror"' }).end();
      return true;
    });
    const file = join(work.path, "mirror.json");
    const auth = (text: string) => ({ auth: Buffer.from(text).toString("base64") });
    const auths = { "https://index.docker.io/v1/": auth("hub:secret"), [mirror.host]: auth("mirror:sesame") };
    await writeFile(file, JSON.stringify({ auths }));
    const registries = { "docker.io": { endpoint: `http://${mirror.host}/cache/` } };
    const image = await store({ registries, credentialFiles: [file] }).images.resolve("mirrored:1");
    assert.equal(image.reference, "docker.io/library/mirrored:1");
    assert.deepEqual([...seen], [undefined, `Basic ${auth("mirror:sesame").auth}`]);
  });

  test("401, then a token from the realm that the registry names, asked for once for all layers", async () => {
    const dir = join(work.path, "token");
    const { key, certificate } = await selfSigned(dir);
    const asked: string[] = [];
    const realm = createServer(async (incoming, response) => {
      const query = new URL(incoming.url ?? "", "http://realm").searchParams;
      asked.push(`${incoming.headers.authorization ?? "anonymous"} ${query.get("scope")}`);
      const [type, name, actions] = (query.get("scope") ?? "").split(":");
      const token = await sign(key, certificate, {
        iss: "tests",
        sub: "",
        aud: query.get("service"),
        exp: Math.floor(Date.now() / 1000) + 300,
        nbf: Math.floor(Date.now() / 1000) - 30,
        iat: Math.floor(Date.now() / 1000),
        jti: randomBytes(8).toString("hex"),
        access: [{ type, name, actions: actions?.split(",") }],
      });
      response.end(JSON.stringify({ token }));
    });
    await new Promise<void>((resolve) => realm.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${(realm.address() as AddressInfo).port}/token`;
      await using guarded = await startRegistry(dir, { token: { realm: url, certificate } });
      await push(layout, "three", `${guarded.host}/team/three:1`);
      asked.length = 0;
      const named = { [new URL(url).host]: {} };
      await store({ registries: named }).images.resolve(`${guarded.host}/team/three:1`);
      assert.deepEqual(asked, ["anonymous repository:team/three:pull"]);
      const registries = { ...named, [guarded.host]: { username: "user", password: "sesame" } };
      await store({ registries }).images.resolve(`${guarded.host}/team/three:1`);
      assert.match(asked[1] ?? "", /^Basic dXNlcjpzZXNhbWU= /);
    } finally {
      realm.closeAllConnections();
      await new Promise((resolve) => realm.close(resolve));
    }
  });
});

async function selfSigned(dir: string): Promise<{ key: string; certificate: string }> {
  await mkdir(dir, { recursive: true });
  const files = { key: join(dir, "key.pem"), certificate: join(dir, "cert.pem") };
  await run("openssl", [
    ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"],
    ...["-keyout", files.key, "-out", files.certificate],
  ]);
  return files;
}

async function sign(keyFile: string, certificateFile: string, claims: unknown): Promise<string> {
  const certificate = (await readFile(certificateFile, "utf8")).replace(/-----[^-]+-----|\s/g, "");
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const head = `${encode({ typ: "JWT", alg: "RS256", x5c: [certificate] })}.${encode(claims)}`;
  const signature = createSign("RSA-SHA256")
    .update(head)
    .sign(createPrivateKey(await readFile(keyFile)));
  return `${head}.${signature.toString("base64url")}`;
}

describe("faults on the way", () => {
  const LAYER = 1 << 20;
  test("a connection that breaks again and again is resumed where it broke", async (t) => {
    let breaks = 0;
    const ranges: string[] = [];
    await using proxy = await faultProxy(registry.port, (incoming, response, upstream) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      if (incoming.headers.range !== undefined) ranges.push(incoming.headers.range);
      forward(incoming, response, upstream, (chunk, offset) => {
        if (offset < LAYER || breaks >= 3) return chunk;
        breaks++;
        return undefined;
      });
      return true;
    });
    const { images, paths } = store();
    const image = await images.resolve(`${proxy.host}/team/one:1`);
    assert.equal(breaks, 3);
    assert.equal(ranges.length, 3);
    // What the proxy had passed on may not all have arrived, so the places are known roughly only.
    const places = ranges.map((range) => Number(/^bytes=(\d+)-$/.exec(range)?.[1]));
    assert.ok(
      places.every((place, i) => place > (places[i - 1] ?? 0)),
      places.join(),
    );
    await assertSameAsUmoci(t, image, "one");
    await assertNothingLeft(paths);
  });

  test("a registry that ignores ranges is read over from the start", async () => {
    let breaks = 0;
    await using proxy = await faultProxy(registry.port, (incoming, response, upstream) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      delete incoming.headers.range;
      forward(incoming, response, upstream, (chunk, offset) => {
        if (offset < LAYER || breaks >= 1) return chunk;
        breaks++;
        return undefined;
      });
      return true;
    });
    await store().images.resolve(`${proxy.host}/team/one:1`);
    assert.equal(breaks, 1);
  });

  test("a registry that stays broken is a clear error, and nothing is left behind", async () => {
    await using proxy = await faultProxy(registry.port, (incoming, response, upstream) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      forward(incoming, response, upstream, () => undefined);
      return true;
    });
    const { images, paths } = store();
    await failsWith("unavailable", /cannot reach|connection broke/, images.resolve(`${proxy.host}/team/one:1`));
    await assertNothingLeft(paths);
  });

  test("the registry killed in the middle of a pull and started again: the pull goes on", async () => {
    await using own = await startRegistry(join(work.path, "killed"));
    await push(layout, "one", `${own.host}/team/one:1`);
    let killed = false;
    await using proxy = await faultProxy(own.port, (incoming, response, upstream) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      forward(incoming, response, upstream, (chunk, offset) => {
        if (killed || offset < LAYER) return chunk;
        killed = true;
        void own.kill().then(() => own.start());
        return undefined;
      });
      return true;
    });
    const { images } = store({ network: { retry: { tries: 10, firstDelayMs: 50 }, idleMs: 2000 } });
    await images.resolve(`${proxy.host}/team/one:1`);
    assert.ok(killed);
  });

  test("429 and 503 are waited out; too many are an error with a remedy", async () => {
    let refusals = 0;
    let limit = 3;
    await using proxy = await faultProxy(registry.port, (_incoming, response) => {
      if (refusals >= limit) return false;
      response.writeHead(refusals++ % 2 === 0 ? 429 : 503, { "retry-after": "0" }).end();
      return true;
    });
    await store().images.resolve(`${proxy.host}/team/one:1`);
    refusals = 0;
    limit = 1000;
    const { images } = store({ network: { retry: { tries: 1, firstDelayMs: 1 } } });
    const error = await failsWith("unavailable", /429/, images.resolve(`${proxy.host}/team/one:1`));
    assert.match(error.remedy ?? "", /wait/);
  });

  test("redirects of layers are followed, without the registry's authorization", async () => {
    const seen: (string | undefined)[] = [];
    await using elsewhere = await faultProxy(registry.port, (incoming) => {
      seen.push(incoming.headers.authorization);
      return false;
    });
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      if (incoming.headers.authorization === undefined) {
        response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
        return true;
      }
      if (!incoming.url?.includes("/blobs/")) return false;
      response.writeHead(307, { location: `http://${elsewhere.host}${incoming.url}` }).end();
      return true;
    });
    const registries = { [proxy.host]: { username: "user", password: "sesame" }, [elsewhere.host]: {} };
    await store({ registries }).images.resolve(`${proxy.host}/team/one:1`);
    assert.deepEqual(new Set(seen), new Set([undefined]));
  });

  test("a registry cannot send us to addresses that only this host reaches, and does not learn what is there", async () => {
    let asked = 0;
    await using inside = await faultProxy(registry.port, (_incoming, response) => {
      asked++;
      response.end(JSON.stringify({ token: "inner" }));
      return true;
    });
    let answer = { status: 302, headers: {} as Record<string, string> };
    const tokens: (string | undefined)[] = [];
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      tokens.push(incoming.headers.authorization);
      response.writeHead(answer.status, answer.headers).end();
      return true;
    });
    const messages = new Set<string>();
    const closed = await freePort();
    for (const host of [inside.host, `127.0.0.1:${closed}`, "localhost:1", "[::1]:81", "10.0.0.1", "169.254.169.254"]) {
      for (const form of [
        { status: 302, headers: { location: `http://${host}/v2/x` } },
        { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } },
      ]) {
        answer = form;
        const plain = { [proxy.host]: { insecure: true } };
        const once = { retry: { tries: 1, firstDelayMs: 1 } };
        const pulled = store({ registries: plain, network: once }).images.resolve(`${proxy.host}/team/one:1`);
        const error = await failsWith("unavailable", /sends us to/, pulled);
        messages.add(error.message.replace(host, "HOST").replace(proxy.host, "REGISTRY"));
      }
    }
    assert.equal(asked, 0);
    assert.deepEqual(new Set(tokens), new Set([undefined]));
    assert.deepEqual([...messages], ["http://REGISTRY sends us to HOST, which cannot be used"]);
  });

  test("a reference to an address that only this host reaches needs the operator's word, where others choose it", async () => {
    const guarded = store({ privateHosts: "named" }).images;
    const name = `${registry.host}/team/one:1`;
    const refused = await failsWith("permission", /not at a public address/, guarded.resolve(name));
    assert.match(refused.remedy ?? "", /images.registries/);
    await store({ privateHosts: "named", registries: { [registry.host]: {} } }).images.resolve(name);
  });

  test("the body of an error is read to its bound and no further", async () => {
    let sent = 0;
    const open = new Set<unknown>();
    await using proxy = await faultProxy(registry.port, (_incoming, response) => {
      response.writeHead(403);
      const more = (): void => {
        while (!response.destroyed && response.write("x".repeat(65_536))) sent += 65_536;
        if (!response.destroyed) response.once("drain", more);
      };
      open.add(response);
      response.once("close", () => open.delete(response));
      more();
      return true;
    });
    await failsWith("permission", /refuses access/, store().images.resolve(`${proxy.host}/team/one:1`));
    assert.ok(sent < 32 * 2 ** 20, `${sent} bytes`);
  });

  test("a redirect to what is no address, and words with orders for a terminal, are plain errors", async () => {
    await using lost = await faultProxy(registry.port, (_incoming, response) => {
      response.writeHead(302, { location: "http://[" }).end();
      return true;
    });
    await failsWith("unavailable", /no address/, store().images.resolve(`${lost.host}/team/one:1`));
    await using loud = await faultProxy(registry.port, (_incoming, response) => {
      response.writeHead(403).end(JSON.stringify({ errors: [{ message: "\u001b]0;x\u0007\nno\u202e" }] }));
      return true;
    });
    const { message } = await failsWith("permission", /x1b/, store().images.resolve(`${loud.host}/team/one:1`));
    assert.doesNotMatch(message, /[\x00-\x1f\u202e]/);
  });

  test("an endless redirect and one to a place without TLS are refused", async () => {
    let location = "";
    await using proxy = await faultProxy(registry.port, (_incoming, response) => {
      response.writeHead(302, { location }).end();
      return true;
    });
    location = `http://${proxy.host}/again`;
    await failsWith("unavailable", /redirects without end/, store().images.resolve(`${proxy.host}/team/one:1`));
    location = "ftp://127.0.0.1/blob";
    await failsWith("unavailable", /not secure/, store().images.resolve(`${proxy.host}/team/one:1`));
  });

  test("a flipped byte in a layer is found, and nothing is left behind", async () => {
    await using proxy = await faultProxy(registry.port, (incoming, response, upstream) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      forward(incoming, response, upstream, (chunk) => {
        const last = chunk.length - 1;
        chunk.writeUInt8(chunk.readUInt8(last) ^ 1, last);
        return chunk;
      });
      return true;
    });
    const { images, paths } = store();
    await failsWith("corrupt", /came as sha256/, images.resolve(`${proxy.host}/team/one:1`));
    assert.deepEqual(await images.list(), []);
    await assertNothingLeft(paths);
  });

  test("a manifest that is not what its digest says is refused", async () => {
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      if (!incoming.url?.includes("/manifests/sha256")) return false;
      response.end(JSON.stringify({ config: {}, layers: [] }));
      return true;
    });
    const name = `${proxy.host}/team/one@sha256:${"0".repeat(64)}`;
    await failsWith("corrupt", /has the digest/, store().images.resolve(name));
  });

  test("a layer that is no archive, and one cut short inside, are refused", async () => {
    const bad = join(work.path, "bad");
    await umociImage(bad, "garbage", [tar(lower).subarray(0, 100_000)]);
    await push(bad, "garbage", `${registry.host}/team/garbage:1`);
    const { images, paths } = store();
    await failsWith("corrupt", /ends in the middle/, images.resolve(`${registry.host}/team/garbage:1`));
    assert.deepEqual(await images.list(), []);
    await assertNothingLeft(paths);
  });

  test("unknown images, unknown hosts and nobody listening each say so", async () => {
    const { images } = store({ network: { retry: { tries: 1, firstDelayMs: 1 } } });
    await failsWith("not-found", /404|unknown/i, images.resolve(`${registry.host}/team/none:1`));
    await failsWith("not-found", /404|unknown/i, images.resolve(`${registry.host}/team/one:none`));
    const refused = await failsWith("unavailable", /cannot reach/, images.resolve("127.0.0.1:9/team/one:1"));
    assert.match(refused.remedy ?? "", /network/);
    await failsWith("not-found", /built-in/, images.resolve("stacyvm/nothing"));
    await failsWith("invalid", /no image reference/, images.resolve("UPPER case"));
  });

  test("plain http where TLS is expected, and a certificate that nobody vouches for, say what would help", async () => {
    const once = { retry: { tries: 1, firstDelayMs: 1 } };
    const plain = store({ registries: { [registry.host]: { insecure: false } }, network: once });
    const http = await failsWith("unavailable", /cannot reach/, plain.images.resolve(`${registry.host}/team/one:1`));
    assert.match(http.remedy ?? "", new RegExp(`insecure: true.*${registry.host}`));
    const { key, certificate } = await selfSigned(join(work.path, "tls"));
    const server = createTlsServer({ key: await readFile(key), cert: await readFile(certificate) });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const own = store({ registries: { [host]: { insecure: false } }, network: once });
      const tls = await failsWith("unavailable", /certificate/, own.images.resolve(`${host}/team/one:1`));
      assert.match(tls.remedy ?? "", /NODE_EXTRA_CA_CERTS/);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  test("a registry that stops sending is given up after the idle limit", async () => {
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      response.writeHead(200, { "content-length": "1000" });
      response.write("x");
      return true;
    });
    const { images } = store({ network: { retry: { tries: 1, firstDelayMs: 1 }, idleMs: 200 } });
    await failsWith("unavailable", /no byte for 200 ms/, images.resolve(`${proxy.host}/team/one:1`));
  });

  test("a cancelled pull ends at once and leaves nothing behind", async () => {
    const cancel = new AbortController();
    await using proxy = await faultProxy(registry.port, (incoming, response) => {
      if (!incoming.url?.includes("/blobs/")) return false;
      response.writeHead(200, { "content-length": "1000" });
      response.write("x");
      cancel.abort();
      return true;
    });
    const { images, paths } = store();
    await failsWith("cancelled", /cancelled/, images.resolve(`${proxy.host}/team/one:1`, { signal: cancel.signal }));
    await assertNothingLeft(paths);
  });

  test("a full disk is `no-space` with a remedy, and nothing is left behind", async (t) => {
    if (process.getuid?.() !== 0) return t.skip("needs root to mount a small filesystem; run `sudo make test`");
    const small = join(work.path, "small");
    await mkdir(small);
    await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", small]);
    try {
      const paths = dataPaths(small);
      const images = createImages(paths, { credentialFiles: [], network: QUICK });
      const error = await failsWith("no-space", /no space/i, images.resolve(`${registry.host}/team/one:1`));
      assert.match(error.remedy ?? "", /free/);
      await assertNothingLeft(paths);
    } finally {
      await run("umount", [small]);
    }
  });
});
