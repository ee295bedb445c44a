/** What sandboxes reach of the network, and what not: real guests, a real server on this host, every way that a machine lives on. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn as spawnProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type Server as HttpServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { ping } from "../src/host/ping.ts";
import { Cli, ended, said } from "./cli-support.ts";
import { EventStream } from "./event-stream.ts";
import { whyNot } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";
import { UdpServer } from "./udp-server.ts";

/** On loopback, and not among what programs ask without a proxy. */
const ADDRESS = "127.8.8.8";
const CONFIG = `
network: { private: ["${ADDRESS}"], names: { web.test: "${ADDRESS}", other.test: "${ADDRESS}" } }
warm: { adaptive: false }
`;
const MAIN = join(packageRoot, "src/cli/main.ts");
/** Connections one after the other; an emulated guest starts a program for each. */
const IN_A_ROW = process.env.STACYVM_LONG === "1" ? 1_000 : 50;
const noFirecracker = await whyNot();

/** Answers each request with its path, and remembers it. */
async function webServer(asked: string[]): Promise<{ web: HttpServer; host: string }> {
  const web = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.end(`page ${request.url} of ${request.headers.host}`);
  });
  web.listen(0, ADDRESS);
  await once(web, "listening");
  return { web, host: `${ADDRESS}:${(web.address() as AddressInfo).port}` };
}

/** Gives each file that is asked for, from the port that was asked (RFC 1350 has another one answer, which no rule would name). */
function tftpServer(asked: string[]): Promise<UdpServer> {
  return UdpServer.open(ADDRESS, (packet) => {
    if (packet.readUInt16BE() !== 1) return undefined;
    const [name = ""] = packet.subarray(2).toString().split("\0");
    asked.push(name);
    return Buffer.concat([Buffer.from([0, 3, 0, 1]), Buffer.from(`file ${name}\n`)]);
  });
}

/** Nothing tells the command that there is a proxy. */
const PLAIN = "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY";
const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

describe("the network of a sandbox", () => {
  let server: Server;
  let web: HttpServer;
  let mine: HttpServer;
  let host: string;
  let port: string;
  const asked: string[] = [];

  const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const spawn = async (more: object = {}): Promise<string> =>
    (await good("POST", "/sandboxes", { ...SPAWN, ...more })).id;
  const run = (id: string, command: string): Promise<{ exit_code: number; stdout: string; stderr: string }> =>
    good("POST", `/sandboxes/${id}/exec`, { command });
  /** What the sandbox gets of a page of this host, or how that failed. */
  const get = async (id: string, path: string): Promise<string> => {
    const { exit_code, stdout, stderr } = await run(id, `wget -q -O - http://${host}${path}`);
    return exit_code === 0 ? stdout : `failed: ${stderr}`;
  };

  /** The same by a program that knows no proxy, and a name. */
  const direct = async (id: string, path: string, name = "web.test"): Promise<string> => {
    const { exit_code, stdout, stderr } = await run(id, `${PLAIN} wget -q -O - http://${name}:${port}${path}`);
    return exit_code === 0 ? stdout : `failed: ${stderr}`;
  };

  before(async () => {
    ({ web, host } = await webServer(asked));
    port = host.split(":")[1] ?? "";
    mine = createServer((request, response) => response.end(`own ${request.url}`)).listen(0, "127.0.0.1");
    await once(mine, "listening");
    server = await Server.create(CONFIG.replace("{", `{ host_ports: [${(mine.address() as AddressInfo).port}],`));
    await good("POST", "/snapshots", SPAWN);
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    for (const each of [web, mine]) {
      each.closeAllConnections();
      each.close();
    }
  });

  test("there is none unless it was given", async () => {
    const id = await spawn();
    assert.match(await get(id, "/none"), /failed: .*(refused|unreachable)/);
    assert.equal((await run(id, "env | grep -ci proxy")).stdout, "0\n");
    assert.equal((await run(id, "wget -q -O - http://127.0.0.1:3128/ 2>&1")).exit_code, 1);
    assert.deepEqual(asked, []);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("what is on the list is reached, everything else is refused, told and counted", async () => {
    await using events = await EventStream.open(server.url, { type: "network.refused" });
    const id = await spawn({ allowed_hosts: [host] });
    assert.deepEqual((await good("GET", `/sandboxes/${id}`)).allowed_hosts, [host]);
    assert.equal(await get(id, "/a?b=c"), `page /a?b=c of ${host}`);
    const other = await run(id, "wget -O - http://elsewhere.example/ 2>&1");
    assert.match(other.stdout, /403 Forbidden/);
    const told = await events.next((event) => event.sandbox_id === id);
    assert.match(JSON.stringify(told), /elsewhere\.example.*not among the hosts/);
    // The proxy's own words, and a tunnel through it.
    const raw = (request: string): string => `printf '${request}' | nc 127.0.0.1 3128`;
    const refused = await run(id, raw("CONNECT elsewhere.example:443 HTTP/1.1\\r\\n\\r\\n"));
    assert.match(refused.stdout, /^HTTP\/1\.1 403 [\s\S]*hint: allow it/);
    const tunnel = await run(
      id,
      raw(`CONNECT ${host} HTTP/1.1\\r\\n\\r\\nGET /t HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n`),
    );
    assert.match(tunnel.stdout, /^HTTP\/1\.1 200 Connection established[\s\S]*page \/t of x$/);
    const network = await good("GET", `/sandboxes/${id}/network`);
    const { sent, received, ...counts } = network;
    assert.deepEqual({ ...counts, open: 0 }, { allowed_hosts: [host], open: 0, connected: 2, refused: 2, failed: 0 });
    assert.ok(sent > 30 && received > 100, JSON.stringify(network));
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("programs that know no proxy: names, connections to any port, questions to any name server", async () => {
    await using events = await EventStream.open(server.url, { type: "network.refused" });
    const id = await spawn({ allowed_hosts: [`web.test:${port}`] });
    const page = (path: string): string => `page ${path} of web.test:${port}`;
    assert.equal(await direct(id, "/direct"), page("/direct"));
    // Each of its ends closes by itself.
    const half = await run(id, `printf 'GET /half HTTP/1.0\r\nHost: x\r\n\r\n' | nc web.test ${port}`);
    assert.match(half.stdout, /page \/half of x$/);
    const stands = /^Address.*: (198\.18\.\d+\.\d+)$/m;
    const [, address = "none"] = stands.exec((await run(id, "nslookup web.test")).stdout) ?? [];
    assert.equal(stands.exec((await run(id, "nslookup web.test 192.0.2.53")).stdout)?.[1], address);
    assert.equal(await direct(id, "/address", address), `page /address of ${address}:${port}`);
    // Judged by the name: the same server by another one, at another port, or by its address, is not allowed.
    const unknown = await run(id, "nslookup other.test");
    assert.match(unknown.stdout + unknown.stderr, /NXDOMAIN/);
    assert.match(await direct(id, "/no", "other.test"), /failed: .*bad address/);
    const told = await events.next((event) => event.sandbox_id === id);
    assert.match(JSON.stringify(told), /other\.test is not among the hosts/);
    const reset = /^failed: .*reset/;
    assert.match(await direct(id, "/no", `web.test:1/x`), /^failed: /);
    for (const name of ["203.0.113.9", "198.18.7.7", "[2001:db8::9]"])
      assert.match(await direct(id, "/no", name), reset);
    assert.ok(!asked.includes("/no"));
    // What is its own stays its own: on loopback, on its address, and under its name.
    const own = `(while true; do echo mine | nc -l -p 5432; done) >/dev/null 2>&1 & sleep 0.5;
      for at in 127.0.0.1 198.19.255.254; do nc -w 5 $at 5432 </dev/null; sleep 0.3; done; kill $!`;
    assert.equal((await run(id, own)).stdout, "mine\nmine\n");
    const network = await good("GET", `/sandboxes/${id}/network`);
    assert.ok(network.connected >= 3 && network.refused >= 4, JSON.stringify(network));
    assert.equal(network.problem, undefined);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("datagrams and echoes: what a rule names with /udp, and hosts that answer; anything else is refused at once", async () => {
    const names: string[] = [];
    await using files = await tftpServer(names);
    const id = await spawn({ allowed_hosts: [`web.test:${port}`, `web.test:${files.port}/udp`] });
    const fetch = (name: string): string => `tftp -g -r ${name} -l - web.test ${files.port} 2>&1`;
    assert.match((await run(id, fetch("here"))).stdout, /^file here\n/);
    // What no rule permits is refused as by a host where nobody listens.
    const refused = await run(id, "traceroute -n -q 1 -w 60 203.0.113.9");
    assert.match(refused.stdout, /^ 1 {2}203\.0\.113\.9 .* ms$/m);
    assert.notEqual((await run(id, "ping -c 1 -W 20 other.test")).exit_code, 0);
    // Its own addresses need nobody.
    for (const own of ["127.0.0.1", "198.19.255.254", "::1", "fd53:7461:6379::1"]) {
      assert.equal((await run(id, `ping -c 1 -W 60 ${own}`)).exit_code, 0, own);
    }
    const hostAnswers = await ping(ADDRESS).catch(() => false);
    for (const family of ["-4", "-6"]) {
      const pinged = await run(id, `ping ${family} -c 1 -W ${hostAnswers ? 60 : 3} web.test`);
      assert.equal(pinged.exit_code, hostAnswers ? 0 : 1, pinged.stdout + pinged.stderr);
    }
    // The guest's own kernel would answer for every address.
    for (const foreign of ["203.0.113.9", "2001:db8::9"]) {
      const silent = await run(id, `ping -c 1 -W 3 ${foreign}`);
      assert.notEqual(silent.exit_code, 0, silent.stdout);
    }
    const { sent, received, refused: count } = await good("GET", `/sandboxes/${id}/network`);
    assert.ok(count >= 2 && sent > 0 && received >= "file here".length);
    assert.deepEqual(names, ["here"]);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("a port of this host's own loopback: for as long as `forward -R` runs, if the operator permits it", async () => {
    const id = await spawn({ allowed_hosts: [host] });
    const { port: own } = mine.address() as AddressInfo;
    const forward = (which: number): ChildProcess =>
      spawnProcess(process.execPath, [MAIN, "forward", "-R", `${which}`, id, "--json", "--server", server.url]);
    const reach = `${PLAIN} wget -q -O - http://host.stacyvm:${own}/reverse`;
    assert.equal((await run(id, reach)).exit_code, 1);
    const reverse = forward(own);
    const done = ended(reverse);
    assert.deepEqual(JSON.parse(await said(reverse)), { guest_address: `host.stacyvm:${own}`, host_port: own });
    assert.equal((await run(id, reach)).stdout, "own /reverse");
    reverse.kill("SIGINT");
    assert.equal((await done).code, 0);
    assert.deepEqual((await good("GET", `/sandboxes/${id}/network`)).allowed_hosts, [host]);
    assert.equal((await run(id, reach)).exit_code, 1);
    const refused = await ended(forward(1));
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /host\.stacyvm:1: this server gives.*network\.host_ports/);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test(`200 connections at once and ${IN_A_ROW} one after the other leave nothing`, async () => {
    const id = await spawn({ allowed_hosts: [`web.test:${port}`] });
    const many = `for i in $(seq 200); do ${PLAIN} wget -q -O - http://web.test:${port}/$i & done | grep -o 'page /[0-9]*' | sort -u | wc -l`;
    assert.equal((await run(id, many)).stdout.trim(), "200");
    const row = `for i in $(seq ${IN_A_ROW}); do printf 'GET /r HTTP/1.0\r\n\r\n' | nc web.test ${port} >/dev/null || exit 1; done; echo done`;
    // Of the agent; the command that counts has its own.
    const files = async (): Promise<string> => (await run(id, "ls /proc/1/fd | wc -l")).stdout;
    const before = await files();
    assert.equal((await run(id, row)).stdout, "done\n");
    let open = 1;
    while (open > 0) ({ open } = await good("GET", `/sandboxes/${id}/network`));
    assert.equal(await files(), before);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("the agent's own ports give a guest's programs no more than its rules", async () => {
    const id = await spawn({ allowed_hosts: ["*:*", "*:*/udp"] });
    // What listens in the guest is the agent: the proxy, and what connections and datagrams to any address come to.
    const found = await run(id, "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" { print $2 }'");
    const listening = found.stdout
      .trim()
      .split("\n")
      .map((entry) => entry.split(":"));
    assert.ok(listening.length >= 2, found.stdout);
    const { port: own } = mine.address() as AddressInfo;
    const before = asked.length;
    for (const [address = "", hex = ""] of listening) {
      const at = address.length === 8 ? (address.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16)) : [];
      const to = at.length === 4 ? at.reverse().join(".") : "::1";
      const ask = `printf 'GET http://127.0.0.1:${own}/ HTTP/1.0\r\n\r\n' | nc -w 5 ${to} ${Number.parseInt(hex, 16)}`;
      assert.doesNotMatch((await run(id, ask)).stdout, /own|page|200/, `${to}:${hex}`);
    }
    assert.equal(asked.length, before);
    // Its channel to the host has one holder.
    const channel = await run(id, "for port in /dev/vport*; do (exec 3<>$port) && echo open $port; done");
    assert.equal(channel.stdout, "", "nobody else opens it");
    assert.match(channel.stderr, /busy|can't open|nonexistent/i);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("a name that leads to this host or a private network is refused, whatever the list says", async () => {
    const id = await spawn({ allowed_hosts: ["*:*"] });
    for (const name of ["localhost", "127.0.0.1", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]) {
      const { stdout } = await run(
        id,
        `printf 'CONNECT ${name}:${new URL(server.url).port} HTTP/1.1\\r\\n\\r\\n' | nc 127.0.0.1 3128`,
      );
      assert.match(stdout, /^HTTP\/1\.1 403 [\s\S]*no public address/, name);
    }
    const metrics = await good("GET", "/metrics/prometheus");
    assert.match(metrics, /^stacyvm_network_connections_total\{result="refused"\} \d+$/m);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("50 programs at once get theirs, and a large body arrives whole", async () => {
    const id = await spawn({ allowed_hosts: [host] });
    const many = await run(
      id,
      `for i in $(seq 50); do wget -q -O - http://${host}/$i & done | grep -o 'page /[0-9]*' | sort -u | wc -l`,
    );
    assert.equal(many.stdout.trim(), "50", many.stderr);
    const body = Buffer.alloc(8 * 2 ** 20, "0123456789abcdef");
    const big = createServer((_request, response) => response.end(body));
    big.listen(0, ADDRESS);
    await once(big, "listening");
    const there = `${ADDRESS}:${(big.address() as AddressInfo).port}`;
    await good("PUT", `/sandboxes/${id}/network`, { allowed_hosts: [there] });
    assert.equal((await run(id, `wget -q -O - http://${there}/ | wc -c`)).stdout.trim(), String(body.length));
    big.close();
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("the list can be changed while it runs: given, taken, and open connections are cut", async () => {
    const id = await spawn();
    const wrong = await server.call("PUT", `/sandboxes/${id}/network`, { allowed_hosts: ["http://nonsense"] });
    assert.equal(wrong.status, 400);
    assert.match(wrong.body.remedy, /example\.com/);
    await good("PUT", `/sandboxes/${id}/network`, { allowed_hosts: [host] });
    assert.equal(await get(id, "/given"), `page /given of ${host}`);
    const held = Promise.withResolvers<void>();
    web.prependOnceListener("request", (request) => request.socket.once("close", held.resolve));
    // It reads nothing and waits: its connection stays open until somebody ends it.
    await good("POST", `/sandboxes/${id}/processes`, {
      command: `(printf 'CONNECT ${host} HTTP/1.1\\r\\n\\r\\nGET /held HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'; sleep 1000) | nc 127.0.0.1 3128`,
    });
    // Others that wait for an answer see a reset, whichever way they came.
    const silent = createTcpServer().listen(0, ADDRESS);
    await once(silent, "listening");
    const { port: nobody } = silent.address() as AddressInfo;
    await good("PUT", `/sandboxes/${id}/network`, { allowed_hosts: [host, `web.test:${nobody}`] });
    const waiting = ["", PLAIN].map((env) => run(id, `${env} wget -q -O - http://web.test:${nobody}/ 2>&1`));
    for (let connected = 0; connected < 2; connected++) await once(silent, "connection");
    while (!asked.includes("/held")) await new Promise((wake) => setTimeout(wake, 20));
    await good("PUT", `/sandboxes/${id}/network`, { allowed_hosts: [] });
    await held.promise;
    for (const each of await Promise.all(waiting)) assert.match(each.stdout, /reset|error getting response/);
    silent.close();
    assert.match(await get(id, "/taken"), /failed: /);
    assert.ok(!asked.includes("/taken"));
    assert.equal((await run(id, "env | grep -ci proxy")).stdout, "0\n");
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("a template's hosts are its sandboxes', and its set-up commands may use them once", async () => {
    const setup = [`wget -q -O /root/fetched http://${host}/setup`];
    await good("POST", "/templates", { name: "fetcher", ...SPAWN, setup, allowed_hosts: [host] });
    const [first, second] = await Promise.all([1, 2].map(() => good("POST", "/templates/fetcher/spawn", {})));
    for (const { id } of [first, second]) {
      assert.equal((await run(id, "cat /root/fetched")).stdout, `page /setup of ${host}`);
      assert.equal(await get(id, "/own"), `page /own of ${host}`);
      await good("DELETE", `/sandboxes/${id}`);
    }
    const wrong = await server.call("POST", "/templates", { name: "wrong", ...SPAWN, allowed_hosts: ["a b"] });
    assert.equal(wrong.status, 400);
    // The same steps without the hosts are another machine, and one that cannot be made.
    const poor = await server.call("POST", "/sandboxes", { ...SPAWN, setup });
    assert.equal(poor.status, 400);
    assert.match(poor.body.message, /set-up command/);
    await good("DELETE", "/templates/fetcher");
  });

  test("a guest whose agent cannot do it says so", { skip: noFirecracker ?? false }, async () => {
    const id = await spawn({ provider: "firecracker", image: "stacyvm/bare", allowed_hosts: [host] });
    let network = await good("GET", `/sandboxes/${id}/network`);
    while (network.problem === undefined) network = await good("GET", `/sandboxes/${id}/network`);
    assert.match(network.problem, /bare guest cannot/);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("it is there again after pause, suspension, fork, checkpoint and a killed daemon", async () => {
    await using files = await tftpServer([]);
    const hosts = [host, `web.test:${port}`, `web.test:${files.port}/udp`];
    const id = await spawn({ allowed_hosts: hosts, env: { MINE: "kept" } });
    const works = async (which: string, path: string): Promise<void> => {
      assert.equal(await get(which, path), `page ${path} of ${host}`);
      assert.equal(await direct(which, path), `page ${path} of web.test:${port}`);
      const file = await run(which, `tftp -g -r ${path} -l - web.test ${files.port}`);
      assert.equal(file.stdout, `file ${path}\n`, file.stderr);
    };
    await works(id, "/1");
    await good("POST", `/sandboxes/${id}/pause`);
    await good("POST", `/sandboxes/${id}/resume`);
    await works(id, "/paused");
    await good("POST", `/sandboxes/${id}/suspend`);
    await good("POST", `/sandboxes/${id}/resume`);
    await works(id, "/suspended");
    const [child] = (await good("POST", `/sandboxes/${id}/fork`, {})).sandboxes;
    assert.deepEqual(child.allowed_hosts, hosts);
    await Promise.all([works(id, "/source"), works(child.id, "/fork")]);
    assert.equal((await run(child.id, "echo $MINE")).stdout, "kept\n");
    const checkpoint = await good("POST", `/sandboxes/${id}/checkpoints`, {});
    await good("POST", `/sandboxes/${id}/restore`, { checkpoint: checkpoint.id });
    await works(id, "/restored");
    // From a checkpoint it is a sandbox of its own: what it may reach is what its own spawn says.
    const other = await spawn({ checkpoint: checkpoint.id });
    assert.match(await get(other, "/other"), /failed: /);
    assert.match(await direct(other, "/other", "203.0.113.9"), /failed: .*unreachable/);
    await good("DELETE", `/sandboxes/${other}`);
    await server.stop("SIGKILL");
    await server.start();
    await Promise.all([works(id, "/adopted"), works(child.id, "/adopted-fork")]);
    assert.deepEqual((await good("GET", `/sandboxes/${id}`)).allowed_hosts, hosts);
    for (const each of [id, child.id]) await good("DELETE", `/sandboxes/${each}`);
  });

  test("where the operator gives no network, asking for one is refused; defaults are for who does not ask", async () => {
    await server.stop("SIGTERM");
    await server.start({ STACYVM_NETWORK_ALLOW: "other.example", STACYVM_DEFAULTS_ALLOWED_HOSTS: host });
    const id = await spawn();
    assert.deepEqual((await good("GET", `/sandboxes/${id}`)).allowed_hosts, [host]);
    assert.match((await run(id, `wget -O - http://${host}/x 2>&1`)).stdout, /403 Forbidden/);
    const asleep = await spawn();
    await good("POST", `/sandboxes/${asleep}/suspend`);
    await server.stop("SIGTERM");
    await server.start({ STACYVM_CONFIG: await none(server.root) });
    // Those that were given some before go on, without it.
    await good("POST", `/sandboxes/${asleep}/resume`);
    for (const each of [id, asleep]) {
      assert.match((await run(each, `wget -O - http://${host}/x 2>&1`)).stdout, /403 Forbidden/);
      await good("DELETE", `/sandboxes/${each}`);
    }
    const refused = await server.call("POST", "/sandboxes", { ...SPAWN, allowed_hosts: [host] });
    assert.equal(refused.status, 403);
    assert.match(refused.body.message, /no network/);
  });
});

describe("the network without a server", () => {
  let cli: Cli;
  let web: HttpServer;
  let host: string;
  before(async () => {
    cli = await Cli.create();
    cli.env.STACYVM_NETWORK_PRIVATE = ADDRESS;
    ({ web, host } = await webServer([]));
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    web.close();
  });

  test("run --allow, and run without", async () => {
    const get = ["stacyvm/busybox", "--", "wget", "-q", "-O", "-", `http://${host}/run`];
    assert.equal(await cli.out("run", "--allow", host, ...get), `page /run of ${host}`);
    assert.equal((await cli.run(["run", ...get])).code, 1);
    const { code, stderr } = await cli.run(["run", "--allow", "http://x", "stacyvm/busybox", "true"]);
    assert.equal(code, 2);
    assert.match(stderr, /names no host to allow[\s\S]*hint: write a host/);
  });

  test("spawn --allow, network, exec: while a command runs, its sandboxes have theirs", async () => {
    const id = await cli.out("spawn", "--allow", host, "--allow", "*.example.com", "-m", "256", "stacyvm/busybox");
    const get = ["exec", id, "--", "wget", "-q", "-O", "-", `http://${host}/exec`];
    assert.equal(await cli.out(...get), `page /exec of ${host}`);
    assert.equal(await cli.out("network", id), `${host}\n*.example.com`);
    assert.deepEqual((await cli.json("network", id, "--none")).allowed_hosts, []);
    assert.equal((await cli.run(get)).code, 1);
    assert.equal(await cli.out("network", id, "--allow", host), host);
    assert.equal(await cli.out(...get), `page /exec of ${host}`);
    assert.equal((await cli.run(["network", id, "--none", "--allow", host])).code, 2);
    await cli.out("rm", id);
  });

  test("image build --allow: the commands of a build", async () => {
    const lines = ["FROM stacyvm/busybox", `RUN wget -q -O /fetched http://${host}/build`, 'CMD ["cat", "/fetched"]'];
    const context = join(cli.data, "context");
    await mkdir(context);
    await writeFile(join(context, "Dockerfile"), lines.join("\n"));
    assert.equal((await cli.run(["image", "build", context, "-q", "-t", "built/fetched"])).code, 2);
    await cli.out("image", "build", context, "-q", "-t", "built/fetched", "--allow", host);
    assert.equal(await cli.out("run", "--cold", "built/fetched"), `page /build of ${host}`);
    await cli.out("image", "rm", "built/fetched");
  });
});

async function none(dir: string): Promise<string> {
  const path = join(dir, "none.yaml");
  await writeFile(path, "network: { allow: [] }\n");
  return path;
}
