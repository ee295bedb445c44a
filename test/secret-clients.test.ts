/**
 * Clients that people use, as they are on this host, against a host of a secret: that they trust what a guest is given, and speak
 * through what ends their TLS. No machine: their connections come to the proxy by a listener here instead of by an agent.
 * STACYVM_LONG=1 also asks with Java and Go, which compile first.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { WebSocketServer } from "ws";
import { Egress } from "../src/egress/egress.ts";
import { HostRules } from "../src/egress/host-rules.ts";
import { resolverOf } from "../src/egress/resolver.ts";
import { certify, makeAuthority } from "../src/egress/secrets/authority.ts";
import { SecretHosts } from "../src/egress/secrets/secret.ts";
import { trustFiles } from "../src/egress/secrets/trust.ts";
import { Addresses } from "../src/host/addresses.ts";

const VALUE = "value-of-the-secret";
const HOST = "api.test";
const LONG = process.env.STACYVM_LONG === "1";
const long = LONG ? false : "it compiles first; STACYVM_LONG=1 runs it";

let dir: string;
let real: Http2SecureServer;
let proxy: Server;
let egress: Egress;
let url = "";
let env: Record<string, string | undefined>;
let proxyPort = 0;
const seen: { version: string; authorization: string | undefined; body: string }[] = [];
const sockets = new Set<Socket>();

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stacyvm-clients-"));
  const world = await makeAuthority();
  const authority = await makeAuthority();
  real = createSecureServer({ ...(await certify(world, HOST)), allowHTTP1: true }, async (request, response) => {
    const { authorization } = request.headers;
    const body = (await request.toArray()).join("");
    seen.push({ version: request.httpVersion, authorization, body });
    response.end(`page ${request.url} ${body}`);
  });
  const ws = new WebSocketServer({ noServer: true });
  real.on("upgrade", (request, socket, head) => {
    seen.push({ version: "websocket", authorization: request.headers.authorization, body: "" });
    ws.handleUpgrade(request, socket, head, (client) => client.on("message", (text) => client.send(`got ${text}`)));
  });
  proxy = createServer((socket) => {
    const taker = takers.shift();
    if (taker === undefined) waiting.push(socket);
    else taker(socket);
  });
  const takers: ((socket: Socket) => void)[] = [];
  const waiting: Socket[] = [];
  for (const server of [real, proxy]) {
    server.on("connection", (socket: Socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  }
  const { port } = real.address() as AddressInfo;
  url = `https://${HOST}:${port}`;
  egress = new Egress({
    rules: new HostRules([`${HOST}:${port}`]),
    ceiling: new HostRules(["*:*"]),
    resolve: resolverOf({ [HOST]: "127.0.0.1" }),
    addresses: new Addresses(["127.0.0.1"]),
    maxConnections: 64,
    idleMs: 60_000,
    guest: {
      accept: () => {
        const socket = waiting.shift();
        return socket === undefined ? new Promise((settle) => takers.push(settle)) : Promise.resolve(socket);
      },
      intercept: () => new Promise(() => {}),
      datagrams: () => new Promise(() => {}),
    },
    secrets: {
      authority,
      trusted: [world.certificate],
      list: () => [
        {
          ...{ name: "KEY", placeholder: "placeholder-1", placement: { kind: "bearer" } },
          hosts: new SecretHosts([`${HOST}:${port}`]),
          read: async () => ({ value: VALUE }),
        },
      ],
    },
    refused: () => {},
  });
  egress.start();
  const paths: Record<string, string> = {};
  for (const file of trustFiles(authority.certificate, undefined, false)) {
    if (!("content" in file)) continue;
    const name = file.path.split("/").at(-1) ?? "";
    paths[name] = join(dir, name);
    await writeFile(join(dir, name), file.content);
  }
  proxyPort = (proxy.address() as AddressInfo).port;
  const at = `http://127.0.0.1:${proxyPort}`;
  env = {
    ...{ PATH: process.env.PATH, HOME: dir, GOCACHE: join(dir, "go"), GOFLAGS: "-mod=mod", GIT_TERMINAL_PROMPT: "0" },
    ...{ https_proxy: at, HTTPS_PROXY: at, NODE_USE_ENV_PROXY: "1" },
    SSL_CERT_FILE: paths["bundle.pem"],
    REQUESTS_CA_BUNDLE: paths["bundle.pem"],
    CURL_CA_BUNDLE: paths["bundle.pem"],
    GIT_SSL_CAINFO: paths["bundle.pem"],
    NODE_EXTRA_CA_CERTS: paths["ca.pem"],
    JAVA_TOOL_OPTIONS: `-Djavax.net.ssl.trustStore=${paths["cacerts.jks"]}`,
  };
});
after(async () => {
  egress.stop();
  for (const socket of sockets) socket.destroy();
  real.close();
  proxy.close();
  await rm(dir, { recursive: true, force: true });
});

/** @returns its output; `undefined` when there is no such program, which skips the test */
async function client(t: TestContext, command: string, ...args: string[]): Promise<string | undefined> {
  seen.length = 0;
  const { error, out } = await new Promise<{ error: (Error & { code?: unknown }) | null; out: string }>((done) => {
    execFile(command, args, { env: env as NodeJS.ProcessEnv, cwd: dir, timeout: 180_000 }, (error, stdout, stderr) =>
      done({ error, out: stdout + (error === null ? "" : stderr) }),
    );
  });
  if (error?.code === "ENOENT") return void t.skip(`there is no ${command} on this host`);
  assert.equal(error, null, out);
  assert.ok(!out.includes(VALUE));
  return out;
}

const asked = (version: string, body = ""): typeof seen => [{ version, authorization: `Bearer ${VALUE}`, body }];

for (const [flag, version] of [
  ["--http1.1", "1.1"],
  ["--http2", "2.0"],
] as const) {
  test(`curl ${flag}, with a body`, async (t) => {
    const out = await client(t, "curl", "-sS", flag, "-d", "a body", `${url}/curl`);
    if (out === undefined) return;
    assert.equal(out, "page /curl a body");
    assert.deepEqual(seen, asked(version, "a body"));
  });
}

test("Python's urllib", async (t) => {
  const out = await client(
    t,
    "python3",
    "-c",
    `import urllib.request as u; print(u.urlopen("${url}/python").read().decode())`,
  );
  if (out === undefined) return;
  assert.match(out, /page \/python/);
  assert.deepEqual(seen, asked("1.1"));
});

test("git over https asks with the secret", async (t) => {
  // The answer is no repository; that it came is what counts.
  const out = await client(t, "sh", "-c", `git ls-remote ${url}/repository.git 2>&1 || true`);
  if (out === undefined) return;
  assert.doesNotMatch(out, /certificate/i);
  assert.equal(seen[0]?.authorization, `Bearer ${VALUE}`, out);
});

test("Node's fetch, and a WebSocket", async (t) => {
  const fetched = await client(
    t,
    process.execPath,
    "-e",
    `fetch("${url}/node").then((a) => a.text()).then(console.log)`,
  );
  assert.match(fetched ?? "", /page \/node/);
  // Newer ones speak HTTP/2.
  assert.deepEqual(seen, asked(seen[0]?.version ?? ""));
  const socket = `const w = new WebSocket("${url.replace("https", "wss")}/ws");
    w.onopen = () => w.send("hello"); w.onmessage = ({ data }) => { console.log(data); w.close(); };
    w.onerror = (e) => { console.error(e); process.exit(1); };`;
  assert.match((await client(t, process.execPath, "-e", socket)) ?? "", /got hello/);
  assert.deepEqual(seen, asked("websocket"));
});

test("Java's HttpClient", { skip: long }, async (t) => {
  const source = `import java.net.*; import java.net.http.*;
public class Ask { public static void main(String[] a) throws Exception {
  var c = HttpClient.newBuilder().proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", ${proxyPort}))).build();
  System.out.println(c.send(HttpRequest.newBuilder(URI.create("${url}/java")).build(), HttpResponse.BodyHandlers.ofString()).body());
} }`;
  await writeFile(join(dir, "Ask.java"), source);
  const out = await client(t, "java", "Ask.java");
  if (out === undefined) return;
  assert.match(out, /page \/java/);
  assert.deepEqual(seen, asked("2.0"));
});

test("Go's net/http", { skip: long }, async (t) => {
  const source = `package main
import ("fmt"; "io"; "net/http")
func main() {
  r, err := http.Get("${url}/go"); if err != nil { panic(err) }
  b, _ := io.ReadAll(r.Body); fmt.Println(string(b))
}`;
  await writeFile(join(dir, "ask.go"), source);
  const out = await client(t, "go", "run", "ask.go");
  if (out === undefined) return;
  assert.match(out, /page \/go/);
  assert.deepEqual(seen, asked("2.0"));
});
