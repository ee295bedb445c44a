/** Real servers on this host's loopback for the network programs of a guest; those that this host does not have are left out. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttp2, createSecureServer, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { WebSocketServer } from "ws";
import { type Authority, certify, makeAuthority } from "../../src/egress/secrets/authority.ts";
import { exists } from "../../src/host/exists.ts";
import { packageRoot } from "../../src/host/paths.ts";
import { ping } from "../../src/host/ping.ts";
import { runTool } from "../../src/host/run.ts";

/** Nothing else of this host is there. */
export const SERVERS_AT = "127.8.8.9";
const NTP_PORT = 123;
/** QUIC and HTTP/3, for the server here and for the client in the guest. */
const AIOQUIC = "aioquic==1.7.2";

export class HostServers implements AsyncDisposable {
  /** By the name of the server; absent: this host has none. */
  readonly ports: Record<string, number> = { dns: 53 };
  /** Of the servers' files. */
  readonly dir: string;
  sshKey: Buffer = Buffer.alloc(0);
  authority: Buffer = Buffer.alloc(0);
  /** Wheels that the mirror of pip has, by their names. */
  readonly #wheels = new Map<string, Buffer>();
  /** Whose certificates programs trust. */
  readonly #world: Promise<Authority> = makeAuthority();
  readonly #children: ChildProcess[] = [];
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #datagrams: DatagramSocket[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** @param name what programs call this host: the certificate is for it */
  static async start(name: string): Promise<HostServers> {
    // A path that another user, PostgreSQL's, can walk.
    const servers = new HostServers(await mkdtemp("/tmp/stacyvm-servers-"));
    await chmod(servers.dir, 0o755);
    try {
      await servers.#web(name);
      await Promise.all([servers.#udp(), servers.#http3(name), servers.#sshd(), servers.#redis(), servers.#postgres()]);
      if (await ping(SERVERS_AT).catch(() => false)) servers.ports.ping = 0;
      return servers;
    } catch (error) {
      await servers[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #listen(name: string, server: Server): Promise<void> {
    this.#servers.push(server);
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.listen(0, SERVERS_AT);
    await once(server, "listening");
    this.ports[name] = (server.address() as AddressInfo).port;
  }

  async #web(name: string): Promise<void> {
    const authority = await this.#world;
    this.authority = Buffer.from(authority.certificate);
    const files = await mirrors(this.dir, this.#wheels);
    let port = 0;
    const answer = (request: IncomingMessage, response: ServerResponse): void => {
      const path = decodeURIComponent(request.url ?? "");
      const file = files(path, `http://${name}:${port}`);
      // pip takes its index as nothing else.
      if (path.startsWith("/pip/") && path.endsWith("/")) response.setHeader("content-type", "text/html");
      if (file !== undefined) response.end(file);
      else if (/^\/(pip|npm|apt)\//.test(path)) response.writeHead(404).end();
      else response.end(`page ${path}`);
    };
    const http = createHttp(answer);
    await this.#listen("http", http);
    port = this.ports.http ?? 0;
    const https = createSecureServer({ ...(await certify(authority, name)), allowHTTP1: true }, (request, response) => {
      response.end(`page ${request.url}`);
    });
    await this.#listen("https", https);
    const ws = createHttp();
    const sockets = new WebSocketServer({ server: ws });
    sockets.on("connection", (client) => client.on("message", (text) => client.send(`got ${text}`)));
    await this.#listen("websocket", ws);
    // One message each way: what comes goes back as it is, a gRPC frame (five bytes and the message).
    const grpc = createHttp2();
    grpc.on("stream", (stream: ServerHttp2Stream) => {
      const parts: Buffer[] = [];
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.on("end", () => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.end(Buffer.concat(parts));
      });
    });
    await this.#listen("grpc", grpc as unknown as Server);
  }

  async #udp(): Promise<void> {
    const open = async (
      name: string,
      port: number,
      answer: (packet: Buffer, port: number) => Buffer,
    ): Promise<void> => {
      const socket = createSocket("udp4");
      this.#datagrams.push(socket);
      socket.on("message", (packet, from) => socket.send(answer(packet, from.port), from.port, from.address));
      socket.bind(port, SERVERS_AT);
      await once(socket, "listening");
      this.ports[name] = socket.address().port;
    };
    await open("echo", 0, (packet) => packet);
    await open("ntp", NTP_PORT, ntpAnswer).catch(() => {});
    await open("stun", 0, stunAnswer);
  }

  /** QUIC's pair: the server here in an environment of its own, the wheels for a client in the guest, which has the same distribution. */
  async #http3(name: string): Promise<void> {
    const python = "/usr/bin/python3";
    const venv = join(this.dir, "http3");
    const pip = ["-m", "pip", "-q", "--disable-pip-version-check"];
    const tool = (command: string, args: string[]) => runTool(command, args, { timeoutMs: 600_000 });
    try {
      await tool("python3", ["-m", "venv", venv]);
      await tool(join(venv, "bin/python"), [...pip, "install", AIOQUIC]);
      const version = await tool(python, ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]);
      const only = ["--only-binary=:all:", "--python-version", version.toString().trim()];
      await tool(join(venv, "bin/python"), [...pip, "download", ...only, "-d", join(venv, "wheels"), AIOQUIC]);
    } catch {
      return; // no package index, or no Python
    }
    for (const wheel of await readdir(join(venv, "wheels"))) {
      this.#wheels.set(wheel, await readFile(join(venv, "wheels", wheel)));
    }
    const { cert, key } = await certify(await this.#world, name);
    await writeFile(join(venv, "cert.pem"), cert);
    await writeFile(join(venv, "key.pem"), key);
    const free = createSocket("udp4").bind(0, SERVERS_AT);
    await once(free, "listening");
    const { port } = free.address();
    free.close();
    await once(free, "close");
    const script = join(packageRoot, "test/network-programs/http3-server.py");
    const args = [script, SERVERS_AT, String(port), join(venv, "cert.pem"), join(venv, "key.pem")];
    const child = spawn(join(venv, "bin/python"), args, { stdio: ["ignore", "pipe", "ignore"] });
    this.#children.push(child);
    const said = await once(child.stdout, "data").then(String);
    if (said.startsWith("ready")) this.ports.http3 = port;
  }

  async #sshd(): Promise<void> {
    const sshd = "/usr/sbin/sshd";
    if (!(await exists(sshd)) || process.getuid?.() !== 0) return;
    const { dir } = this;
    for (const key of ["host", "key"]) {
      await runTool("ssh-keygen", ["-q", "-N", "", "-t", "ed25519", "-f", join(dir, key)], {
        package: "openssh-client",
      });
    }
    this.sshKey = await readFile(join(dir, "key"));
    await writeFile(join(dir, "authorized_keys"), await readFile(join(dir, "key.pub")));
    await mkdir("/run/sshd", { recursive: true });
    await runTool("git", ["init", "-q", "--bare", "-b", "main", join(dir, "repo.git")], { package: "git" });
    const port = await freePort();
    const options = {
      ...{ ListenAddress: SERVERS_AT, Port: port, HostKey: join(dir, "host"), PidFile: "none", UsePAM: "no" },
      ...{
        AuthorizedKeysFile: join(dir, "authorized_keys"),
        StrictModes: "no",
        PermitRootLogin: "prohibit-password",
        Subsystem: "sftp internal-sftp",
      },
    };
    const set = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    await this.#child("sshd", port, sshd, ["-D", "-f", "/dev/null", ...set]);
  }

  async #redis(): Promise<void> {
    if (!(await exists("/usr/bin/redis-server"))) return;
    const port = await freePort();
    const args = ["--bind", SERVERS_AT, "--port", String(port), "--save", "", "--protected-mode", "no"];
    await this.#child("redis-server", port, "redis-server", args);
  }

  async #postgres(): Promise<void> {
    const versions = await runTool("sh", ["-c", "ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1"]);
    const bin = versions.toString().trim();
    const user = await runTool("id", ["-u", "postgres"]).catch(() => undefined);
    if (bin === "" || user === undefined || !(await exists(join(bin, "postgres")))) return;
    const data = join(this.dir, "pg");
    await mkdir(data);
    await chown(data, Number(user.toString()), -1);
    const as = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
    await runTool("setpriv", [...as, join(bin, "initdb"), "-D", data, "-A", "trust", "-N"], { cwd: "/" });
    await writeFile(join(data, "pg_hba.conf"), "host all all 127.0.0.0/8 trust\n");
    const port = await freePort();
    const args = ["-D", data, "-h", SERVERS_AT, "-p", String(port), "-k", data, "-F"];
    await this.#child("postgres", port, "setpriv", [...as, join(bin, "postgres"), ...args]);
  }

  async #child(name: string, port: number, command: string, args: string[]): Promise<void> {
    const child = spawn(command, args, { cwd: "/", stdio: "ignore" });
    this.#children.push(child);
    const gone = once(child, "exit").then(([code]) => {
      throw new Error(`${name} ended with ${code}`);
    });
    await Promise.race([gone, listening(port)]);
    gone.catch(() => {});
    this.ports[name] = port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill("SIGTERM");
      await Promise.race([once(child, "exit"), delay(10_000).then(() => child.kill("SIGKILL"))]);
    }
    for (const socket of this.#datagrams) socket.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const server of this.#servers) server.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, SERVERS_AT);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function listening(port: number): Promise<void> {
  for (let turn = 0; turn < 600; turn++) {
    const socket = connect(port, SERVERS_AT);
    const there = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (there) return;
    await delay(100);
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** RFC 5905, 7.3: a server of stratum 1 with this host's clock. */
function ntpAnswer(question: Buffer): Buffer {
  const answer = Buffer.alloc(48);
  answer.writeUInt8((question.readUInt8() & 0x38) | 4);
  answer.writeUInt8(1, 1);
  answer.writeInt8(-20, 3);
  answer.write("LOCL", 12, "latin1");
  question.copy(answer, 24, 40, 48);
  const now = Date.now() / 1_000 + 2_208_988_800;
  for (const at of [16, 32, 40]) {
    answer.writeUInt32BE(Math.floor(now), at);
    answer.writeUInt32BE(Math.floor((now % 1) * 2 ** 32), at + 4);
  }
  return answer;
}

/** RFC 8489: where a binding request came from. */
function stunAnswer(request: Buffer, port: number): Buffer {
  const answer = Buffer.alloc(32);
  answer.writeUInt16BE(0x0101);
  answer.writeUInt16BE(12, 2);
  request.copy(answer, 4, 4, 20);
  answer.writeUInt16BE(0x0020, 20);
  answer.writeUInt16BE(8, 22);
  answer.writeUInt8(1, 25);
  answer.writeUInt16BE(port ^ 0x2112, 26);
  answer.writeUInt32BE((0x7f000001 ^ 0x2112a442) >>> 0, 28);
  return answer;
}

/** What the mirrors of pip, npm and apt have at a path: one package, `probe`, and more wheels. @param origin where they are */
async function mirrors(
  dir: string,
  wheels: Map<string, Buffer>,
): Promise<(path: string, origin: string) => string | Buffer | undefined> {
  const at = (...parts: string[]): string => join(dir, "mirror", ...parts);
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(join(path, ".."), { recursive: true });
    await writeFile(path, text);
  };
  await put(at("wheel/probe.py"), 'word = "installed"\n');
  await put(at("wheel/probe-1.0.dist-info/METADATA"), "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n");
  await put(
    at("wheel/probe-1.0.dist-info/WHEEL"),
    "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
  );
  await put(at("wheel/probe-1.0.dist-info/RECORD"), "probe.py,,\n");
  const wheel = at("probe-1.0-py3-none-any.whl");
  await runTool("python3", ["-m", "zipfile", "-c", wheel, "probe.py", "probe-1.0.dist-info"], { cwd: at("wheel") });
  await put(at("npm/package/package.json"), '{"name":"probe","version":"1.0.0","main":"index.js"}');
  await put(at("npm/package/index.js"), 'module.exports = "installed";\n');
  await runTool("tar", ["-czf", at("probe.tgz"), "package"], { cwd: at("npm") });
  await put(
    at("deb/DEBIAN/control"),
    "Package: probe\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nDescription: probe\n",
  );
  await put(at("deb/usr/share/probe"), "installed\n");
  await runTool("dpkg-deb", ["-b", "--root-owner-group", at("deb"), at("probe.deb")]);
  wheels.set("probe-1.0-py3-none-any.whl", await readFile(wheel));
  const files = {
    tgz: await readFile(at("probe.tgz")),
    deb: await readFile(at("probe.deb")),
  };
  const sha = (algorithm: string, content: Buffer, as: "hex" | "base64" = "hex"): string =>
    createHash(algorithm).update(content).digest(as);
  const packages = `Package: probe\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nFilename: ./probe.deb\nSize: ${files.deb.length}\nSHA256: ${sha("sha256", files.deb)}\nDescription: probe\n\n`;
  return (path, origin) => {
    const [, project, wheel] = /^\/pip\/(?:([^/]+)\/|([^/]+\.whl))$/.exec(path) ?? [];
    if (wheel !== undefined) return wheels.get(wheel);
    if (project !== undefined) return indexOf(project, wheels.keys());
    if (path === "/npm/probe.tgz") return files.tgz;
    if (path === "/apt/./Packages" || path === "/apt/Packages") return packages;
    if (path === "/apt/./probe.deb" || path === "/apt/probe.deb") return files.deb;
    if (path !== "/npm/probe") return undefined;
    const dist = { tarball: `${origin}/npm/probe.tgz`, integrity: `sha512-${sha("sha512", files.tgz, "base64")}` };
    const version = { name: "probe", version: "1.0.0", dist };
    return JSON.stringify({ name: "probe", "dist-tags": { latest: "1.0.0" }, versions: { "1.0.0": version } });
  };
}

/** The page of one project, as PEP 503 has it; `undefined`: there is none. */
function indexOf(project: string, wheels: Iterable<string>): string | undefined {
  const found = [...wheels].filter((wheel) => wheel.split("-", 1)[0]?.toLowerCase().replaceAll("_", "-") === project);
  if (found.length === 0) return undefined;
  return found.map((wheel) => `<a href="/pip/${wheel}">${wheel}</a>`).join("\n");
}
