/** For the tests of images: crafted archives, a real registry on loopback, a proxy with faults, and trees to compare. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

export const run = promisify(execFile);

export interface Member {
  path: string;
  /** tar's type flag; default `0`, a file */
  type?: string;
  content?: string | Buffer;
  link?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  major?: number;
  minor?: number;
  /** Extended header before the member. */
  pax?: Record<string, string | Buffer>;
  /** What the header claims, where it lies about `content`. */
  size?: number | string;
  /** Spoils the checksum. */
  badChecksum?: boolean;
}

/** An archive byte by byte, also one that no tar program would write. */
export function tar(members: Member[], end = true): Buffer {
  const parts = members.flatMap((member) => [...(member.pax ? paxHeader(member.pax) : []), ...plainMember(member)]);
  return Buffer.concat([...parts, ...(end ? [Buffer.alloc(1024)] : [])]);
}

function plainMember(member: Member): Buffer[] {
  const content = Buffer.from(member.content ?? "");
  const long = (text: string, type: string): Buffer[] =>
    Buffer.byteLength(text) > 99 ? plainMember({ path: "././@LongLink", type, content: `${text}\0` }) : [];
  return [
    ...long(member.path, "L"),
    ...long(member.link ?? "", "K"),
    header(member, content.length),
    content,
    Buffer.alloc((512 - (content.length % 512)) % 512),
  ];
}

function header(member: Member, length: number): Buffer {
  const bytes = Buffer.alloc(512);
  const octal = (value: number, at: number, size: number): void => {
    bytes.write(value.toString(8).padStart(size - 1, "0"), at, "latin1");
  };
  bytes.write(member.path.slice(0, 99), 0, "utf8");
  octal(member.mode ?? 0o644, 100, 8);
  octal(member.uid ?? 0, 108, 8);
  octal(member.gid ?? 0, 116, 8);
  if (typeof member.size === "string") bytes.write(member.size, 124, "latin1");
  else octal(member.size ?? length, 124, 12);
  octal(member.mtime ?? 1_700_000_000, 136, 12);
  bytes.write(member.type ?? "0", 156, "latin1");
  bytes.write((member.link ?? "").slice(0, 99), 157, "utf8");
  bytes.write("ustar\x0000", 257, "latin1");
  octal(member.major ?? 0, 329, 8);
  octal(member.minor ?? 0, 337, 8);
  bytes.fill(" ", 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0) + (member.badChecksum === true ? 1 : 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}

function paxHeader(pax: Record<string, string | Buffer>): Buffer[] {
  const records = Object.entries(pax).map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
    let length = rest.length + 1;
    while (rest.length + String(length).length !== length) length = rest.length + String(length).length;
    return Buffer.concat([Buffer.from(String(length)), rest]);
  });
  return plainMember({ path: "pax", type: "x", content: Buffer.concat(records) });
}

export async function scratch(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "images-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Makes `name` in the OCI layout `layout`, a layer per archive, by umoci. */
export async function umociImage(layout: string, tag: string, layers: Buffer[], config: string[] = []): Promise<void> {
  await run("umoci", ["init", "--layout", layout]).catch(() => {}); // it may exist
  await run("umoci", ["new", "--image", `${layout}:${tag}`]);
  for (const layer of layers) {
    const file = join(layout, "..", `layer-${createHash("sha256").update(layer).digest("hex").slice(0, 12)}.tar`);
    await writeFile(file, layer);
    await run("umoci", ["raw", "add-layer", "--image", `${layout}:${tag}`, file]);
  }
  if (config.length > 0) await run("umoci", ["config", "--image", `${layout}:${tag}`, ...config]);
}

/** Writes the image `from` of a layout again as `to`, its layers compressed in another way. */
export async function recompress(
  layout: string,
  from: string,
  to: string,
  change: (layer: Buffer) => Buffer,
  suffix?: string,
): Promise<void> {
  const blob = (digest: string): string => join(layout, "blobs", digest.replace(":", "/"));
  const put = async (bytes: Buffer): Promise<{ digest: string; size: number }> => {
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    await writeFile(blob(digest), bytes);
    return { digest, size: bytes.length };
  };
  const index = JSON.parse(await readFile(join(layout, "index.json"), "utf8"));
  const name = "org.opencontainers.image.ref.name";
  const entry = index.manifests.find((one: { annotations: Record<string, string> }) => one.annotations[name] === from);
  const manifest = JSON.parse(await readFile(blob(entry.digest), "utf8"));
  const mediaType = `application/vnd.oci.image.layer.v1.tar${suffix === undefined ? "" : `+${suffix}`}`;
  for (const layer of manifest.layers) {
    Object.assign(layer, await put(change(await readFile(blob(layer.digest)))), { mediaType });
  }
  index.manifests.push({
    ...entry,
    ...(await put(Buffer.from(JSON.stringify(manifest)))),
    annotations: { [name]: to },
  });
  await writeFile(join(layout, "index.json"), JSON.stringify(index));
}

export interface Registry extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  host: string;
  port: number;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export interface RegistryAuth {
  /** htpasswd lines */
  basic?: string;
  token?: { realm: string; certificate: string };
}

/** Debian's docker-registry on a free port of loopback. */
export async function startRegistry(dir: string, auth: RegistryAuth = {}): Promise<Registry> {
  const port = await freePort();
  const lines = [
    "version: 0.1",
    "log: {level: error}",
    `storage: {filesystem: {rootdirectory: ${join(dir, "registry")}}}`,
    `http: {addr: "127.0.0.1:${port}"}`,
  ];
  await mkdir(dir, { recursive: true });
  if (auth.basic !== undefined) {
    await writeFile(join(dir, "htpasswd"), auth.basic);
    lines.push(`auth: {htpasswd: {realm: test, path: ${join(dir, "htpasswd")}}}`);
  }
  if (auth.token !== undefined) {
    const { realm, certificate } = auth.token;
    lines.push(`auth: {token: {realm: "${realm}", service: test, issuer: tests, rootcertbundle: ${certificate}}}`);
  }
  const config = join(dir, "registry.yml");
  await writeFile(config, `${lines.join("\n")}\n`);
  let child: ChildProcess | undefined;
  const kill = async (): Promise<void> => {
    const old = child;
    child = undefined;
    if (old === undefined || old.exitCode !== null || old.signalCode !== null) return;
    const exited = new Promise((resolve) => old.once("exit", resolve));
    old.kill("SIGKILL");
    await exited;
  };
  const start = async (): Promise<void> => {
    const started = spawn("docker-registry", ["serve", config], { stdio: ["ignore", "ignore", "pipe"] });
    child = started;
    let words = "";
    started.stderr.on("data", (text) => {
      words += text;
    });
    for (let i = 0; !(await answers(port)); i++) {
      if (started.exitCode !== null || i === 500) throw new Error(`docker-registry does not start: ${words}`);
      await new Promise((wake) => setTimeout(wake, 20));
    }
  };
  await start();
  return { host: `127.0.0.1:${port}`, port, kill, start, [Symbol.asyncDispose]: kill };
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createTcpServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Fills a registry from an OCI layout. */
export async function push(layout: string, tag: string, target: string, options: string[] = []): Promise<void> {
  await run("skopeo", ["copy", "--dest-tls-verify=false", ...options, `oci:${layout}:${tag}`, `docker://${target}`]);
}

/** Decides about a request; `true`: it has answered, `false`: pass it on. */
export type Fault = (incoming: IncomingMessage, response: ServerResponse, upstream: number) => boolean;

export interface Proxy extends AsyncDisposable {
  host: string;
  /** Paths of all requests, in order. */
  seen: string[];
}

/** A proxy before a real registry, for faults that a sound registry cannot be made to show. */
export async function faultProxy(upstream: number, fault: Fault): Promise<Proxy> {
  const seen: string[] = [];
  const server: Server = createServer((incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url}`);
    if (!fault(incoming, response, upstream)) forward(incoming, response, upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    host: `127.0.0.1:${port}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** @param change what becomes of the body; `undefined` breaks the connection there */
export function forward(
  incoming: IncomingMessage,
  response: ServerResponse,
  upstream: number,
  change: (chunk: Buffer, offset: number) => Buffer | undefined = (chunk) => chunk,
): void {
  const onward = request(
    { host: "127.0.0.1", port: upstream, path: incoming.url, method: incoming.method, headers: incoming.headers },
    (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      let offset = 0;
      answer.on("data", (chunk: Buffer) => {
        const changed = change(chunk, offset);
        offset += chunk.length;
        if (changed === undefined) {
          response.destroy();
          answer.destroy();
        } else response.write(changed);
      });
      answer.on("end", () => response.end());
      answer.on("error", () => response.destroy());
    },
  );
  onward.on("error", () => response.destroy());
  onward.end();
}

const LISTING = `
import hashlib, json, os, stat, sys
root = os.fsencode(sys.argv[1])
seen = {}
for dir, dirs, files in os.walk(root):
    for name in [b"."] + dirs + files if dir == root else dirs + files:
        path = os.path.join(dir, name)
        s = os.lstat(path)
        kind = stat.S_IFMT(s.st_mode)
        entry = {"path": os.path.relpath(path, root).decode("latin1"), "mode": oct(s.st_mode), "uid": s.st_uid, "gid": s.st_gid}
        if kind == stat.S_IFREG:
            entry.update(size=s.st_size, mtime=s.st_mtime_ns, links=s.st_nlink)
            entry["same"] = seen.setdefault(s.st_ino, entry["path"]) if s.st_nlink > 1 else None
            with open(path, "rb") as f: entry["sha256"] = hashlib.sha256(f.read()).hexdigest()
        if kind == stat.S_IFLNK: entry["target"] = os.readlink(path).decode("latin1")
        if kind in (stat.S_IFCHR, stat.S_IFBLK): entry["device"] = [os.major(s.st_rdev), os.minor(s.st_rdev)]
        xattrs = {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in os.listxattr(path, follow_symlinks=False)}
        entry["xattrs"] = {n: v for n, v in xattrs.items() if n != "security.selinux"}
        print(json.dumps(entry, sort_keys=True))
`;

export type Listing = Map<string, Record<string, unknown>>;

/** Everything that can be seen of a tree on the host, by path (bytes as latin1). Hard links count by who shares an inode. */
export async function listTree(dir: string): Promise<Listing> {
  const { stdout } = await run("python3", ["-c", LISTING, dir], { maxBuffer: 1 << 30 });
  const entries = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  // Which of the names a walk meets first differs from filesystem to filesystem.
  const first = new Map<unknown, string>();
  for (const entry of entries) {
    if (entry.same == null) continue;
    const path = String(entry.path);
    const before = first.get(entry.same);
    if (before === undefined || path < before) first.set(entry.same, path);
  }
  return new Map(
    entries
      .map((entry) => (entry.same == null ? entry : { ...entry, same: first.get(entry.same) }))
      .sort((a, b) => (String(a.path) < String(b.path) ? -1 : 1))
      .map((entry) => [String(entry.path), entry]),
  );
}

/** Why bases cannot be mounted here, or `undefined`. */
export async function mountProblem(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "needs root to mount; run `sudo make test`";
  const known = await readFile("/proc/filesystems", "utf8");
  if (/\terofs\n/.test(known)) return undefined;
  return run("modprobe", ["erofs"]).then(
    () => undefined,
    () => "this kernel has no erofs; run it on a kernel with CONFIG_EROFS_FS",
  );
}

/** The kernel's view of a base. */
export async function mountBase(base: string, at: string): Promise<AsyncDisposable> {
  await mkdir(at, { recursive: true });
  await run("mount", ["-t", "erofs", "-o", "loop,ro", base, at]);
  return {
    async [Symbol.asyncDispose]() {
      await run("umount", [at]);
    },
  };
}
