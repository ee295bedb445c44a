/**
 * Programs that know nothing of a proxy, as their users run them, in a real guest with the distribution's packages, against real servers
 * on this host: what docs/network.md says of them. A long form: STACYVM_LONG=1 makes an image of the packages first (kept in `.build`).
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import type { Egress } from "../src/egress/egress.ts";
import { DEFAULT_NETWORK, Network } from "../src/egress/network.ts";
import { packageRoot } from "../src/host/paths.ts";
import { type Guest, startGuest, testIdentity } from "./agent-support.ts";
import { NETWORK_PROGRAMS } from "./network-programs/packages.ts";
import { HostServers, SERVERS_AT } from "./network-programs/servers.ts";
import { packagesBase, runIn, skipPrograms } from "./programs-support.ts";

/** Of each server, as programs of the guest know it. */
const NAME = "host.test";
const SSH =
  "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i /root/key";

describe("programs without a proxy", { skip: skipPrograms }, () => {
  let servers: HostServers;
  let guest: Guest;
  let egress: Egress;
  let run: ReturnType<typeof runIn>;

  before(async () => {
    servers = await HostServers.start(NAME);
    const image = join(packageRoot, ".build/network-programs.img");
    const path = await packagesBase(image, NETWORK_PROGRAMS);
    guest = await startGuest({
      base: { path, filesystem: "erofs" },
      ...{ memoryMiB: 1024, diskMiB: 4096, vcpus: 2 },
    });
    const agent = await guest.connect(testIdentity({ network: true }));
    const network = new Network({ ...DEFAULT_NETWORK, private: [SERVERS_AT], names: { [NAME]: SERVERS_AT } });
    egress = network.egress([`${NAME}:*`, `${NAME}:*/udp`], agent);
    egress.start();
    run = runIn(agent);
    await agent.writeFile("/root/key", servers.sshKey, { mode: 0o600 });
    await agent.writeFile("/root/ca.pem", servers.authority);
    const client = join(packageRoot, "test/network-programs/http3-client.py");
    await agent.writeFile("/root/http3-client.py", await readFile(client));
  });
  after(async () => {
    egress?.stop();
    await guest?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  /** One row: what the program printed, with the port of the server that it needs; skipped where this host has no such server. */
  function row(name: string, server: string, script: (port: number) => string, expected: RegExp): void {
    test(name, { timeout: 900_000 }, async (context: TestContext) => {
      const port = servers.ports[server];
      if (port === undefined) return context.skip(`this host has no ${server}`);
      assert.match(await run(script(port)), expected);
    });
  }

  row(
    "dig, by UDP, TCP, IPv6 and another server",
    "dns",
    () =>
      `dig +short ${NAME}; dig +tcp +short ${NAME}; dig +short AAAA ${NAME}; dig +short @192.0.2.53 ${NAME}; dig +short @2001:db8::53 ${NAME}; dig no.example | grep -o 'status: [A-Z]*'`,
    /^(198\.18\.\d+\.\d+)\n\1\n2001:2::[0-9a-f]+\n\1\n\1\nstatus: NXDOMAIN$/,
  );
  row(
    "getent (glibc) finds both families",
    "dns",
    () => `getent ahostsv4 ${NAME} | head -1; getent ahostsv6 ${NAME} | head -1`,
    /^198\.18\..*\n2001:2::/,
  );
  row("ssh", "sshd", (port) => `ssh ${SSH} -p ${port} root@${NAME} 'echo over $((6*7))'`, /^over 42$/);
  row(
    "scp",
    "sshd",
    (port) =>
      `head -c 3000000 /dev/urandom > big; scp -q ${SSH} -P ${port} big root@${NAME}:${servers.dir}/big; ssh ${SSH} -p ${port} root@${NAME} sha256sum < /dev/null ${servers.dir}/big | cut -c1-64 > there; sha256sum big | cut -c1-64 | diff - there && echo same`,
    /^same$/,
  );
  row(
    "git over SSH: clone, commit, push",
    "sshd",
    (port) =>
      `rm -rf r; export GIT_SSH_COMMAND='ssh ${SSH}'; git clone -q ssh://root@${NAME}:${port}${servers.dir}/repo.git r 2>/dev/null; cd r; git config user.name n; git config user.email e@x; date +%N > f; git add f; git commit -qm one; git push -q origin HEAD:main; git ls-remote origin main | cut -c1-40 | diff - <(git rev-parse HEAD) && echo pushed`,
    /^pushed$/,
  );
  row("psql", "postgres", (port) => `psql -h ${NAME} -p ${port} -U postgres -Atc 'select 6*7' postgres`, /^42$/);
  row(
    "redis-cli",
    "redis-server",
    (port) => `redis-cli -h ${NAME} -p ${port} set k v; redis-cli -h ${NAME} -p ${port} get k`,
    /^OK\nv$/,
  );
  row(
    "curl --http2",
    "https",
    (port) => `curl -sS --http2 --cacert ca.pem -w ' %{http_version}' https://${NAME}:${port}/page`,
    /^page \/page 2$/,
  );
  row("curl -6", "https", (port) => `curl -sS -6 --cacert ca.pem https://${NAME}:${port}/six`, /^page \/six$/);
  row(
    "Node: fetch and http, without any variable but the certificate",
    "https",
    (port) =>
      `NODE_EXTRA_CA_CERTS=ca.pem node -e 'fetch("https://${NAME}:${port}/node").then((r) => r.text()).then(console.log)'`,
    /^page \/node$/,
  );
  row(
    "Node: datagrams",
    "echo",
    (port) =>
      `node -e 'const s = require("dgram").createSocket("udp4"); s.on("message", (m) => { console.log(String(m)); s.close(); }); s.send("hi", ${port}, "${NAME}");'`,
    /^hi$/,
  );
  row(
    "Python: asyncio, streams",
    "redis-server",
    (port) => `python3 -c 'import asyncio
async def main():
  r, w = await asyncio.open_connection("${NAME}", ${port}); w.write(b"PING\\r\\n"); print((await r.readline()).decode().strip()); w.close()
asyncio.run(main())'`,
    /^\+PONG$/,
  );
  row(
    "Python: asyncio, datagrams",
    "echo",
    (port) => `python3 -c 'import asyncio
class P(asyncio.DatagramProtocol):
  def connection_made(self, t): t.sendto(b"asyncio")
  def datagram_received(self, d, a): done.set_result(d.decode())
async def main():
  global done; loop = asyncio.get_running_loop(); done = loop.create_future()
  await loop.create_datagram_endpoint(P, remote_addr=("${NAME}", ${port})); print(await asyncio.wait_for(done, 60))
asyncio.run(main())'`,
    /^asyncio$/,
  );
  row(
    "gRPC",
    "grpc",
    (port) => `python3 -c 'import grpc
c = grpc.insecure_channel("${NAME}:${port}"); print(c.unary_unary("/test.Echo/Say")(b"hello grpc", timeout=120).decode())'`,
    /^hello grpc$/,
  );
  row(
    "WebSocket",
    "websocket",
    (port) => `python3 -c 'import asyncio, websockets
async def main():
  async with websockets.connect("ws://${NAME}:${port}/", open_timeout=120) as w:
    await w.send("hello"); print(await w.recv())
asyncio.run(main())'`,
    /^got hello$/,
  );
  row(
    "C with musl, and with glibc",
    "redis-server",
    (port) => `cat > c.c <<'C'
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int n, char **a) {
  struct addrinfo *r, h = { .ai_socktype = SOCK_STREAM };
  int e = getaddrinfo(a[1], a[2], &h, &r);
  if (e) return printf("%s\\n", gai_strerror(e)), 1;
  int s = socket(r->ai_family, SOCK_STREAM, 0);
  char b[64] = { 0 };
  if (connect(s, r->ai_addr, r->ai_addrlen) || write(s, "PING\\r\\n", 6) != 6 || read(s, b, 63) < 1) return perror("c"), 1;
  return fputs(b, stdout), 0;
}
C
musl-gcc -static -o m c.c; gcc -o g c.c; ./m ${NAME} ${port}; ./g ${NAME} ${port}; ./m no.example 1 || true`,
    /^\+PONG\s+\+PONG\s+Name does not resolve/,
  );
  row(
    "Go, with its own resolver and with the C library's",
    "redis-server",
    (port) => `export HOME=/root; cat > g.go <<'G'
package main
import ("bufio"; "fmt"; "net")
func main() {
  c, err := net.Dial("tcp", "${NAME}:${port}"); if err != nil { panic(err) }
  fmt.Fprint(c, "PING\\r\\n"); line, _ := bufio.NewReader(c).ReadString('\\n'); fmt.Print(line)
}
G
go build -o gg g.go; GODEBUG=netdns=go ./gg; GODEBUG=netdns=cgo ./gg`,
    /^\+PONG\s+\+PONG$/,
  );
  row(
    "Java: a socket, and its HTTP client",
    "http",
    (port) => `cat > J.java <<'J'
import java.net.*; import java.net.http.*;
public class J { public static void main(String[] a) throws Exception {
  try (Socket s = new Socket("${NAME}", ${port})) { System.out.println(s.isConnected()); }
  System.out.println(HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create("http://${NAME}:${port}/java")).build(), HttpResponse.BodyHandlers.ofString()).body());
} }
J
java J.java`,
    /^true\npage \/java$/,
  );
  row(
    "pip",
    "http",
    (port) =>
      `pip install -q --break-system-packages --root-user-action=ignore --disable-pip-version-check --index-url http://${NAME}:${port}/pip/ --trusted-host ${NAME} probe; python3 -c 'import probe; print(probe.word)'`,
    /^installed$/,
  );
  row(
    "npm",
    "http",
    (port) =>
      `mkdir -p n; cd n; npm install --silent --no-audit --no-fund --registry http://${NAME}:${port}/npm/ probe > /dev/null; node -p 'require("probe")'`,
    /^installed$/,
  );
  row(
    "apt",
    "http",
    (port) =>
      `echo 'deb [trusted=yes] http://${NAME}:${port}/apt ./' > /etc/apt/sources.list; rm -rf /etc/apt/sources.list.d/*; apt-get -q update >/dev/null; apt-get install -yq probe >/dev/null 2>&1; cat /usr/share/probe`,
    /^installed$/,
  );
  row("NTP", "ntp", () => `ntpdig -t 60 ${NAME}`, /host\.test|198\.18\./);
  row(
    "HTTP/3 over QUIC, after pip has fetched its client from the mirror",
    "http3",
    (port) =>
      `pip install -q --break-system-packages --root-user-action=ignore --disable-pip-version-check --index-url http://${NAME}:${servers.ports.http}/pip/ --trusted-host ${NAME} aioquic; python3 http3-client.py ${NAME} ${port} ca.pem /one /big /two`,
    /^page \/one 9\npage \/big\.? 262153\npage \/two 9$/,
  );
  row(
    "STUN: the address that the host is seen at",
    "stun",
    (port) => `python3 -c 'import os, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60); i = os.urandom(12)
s.sendto(struct.pack("!HHI", 1, 0, 0x2112A442) + i, ("${NAME}", ${port})); d, a = s.recvfrom(512)
k, n, c = struct.unpack("!HHI", d[:8]); assert (k, c, d[8:20]) == (0x101, 0x2112A442, i)
print(socket.inet_ntoa(bytes(x ^ y for x, y in zip(d[28:32], struct.pack("!I", 0x2112A442)))))'`,
    /^127\./,
  );
  row(
    "datagrams over IPv6",
    "echo",
    (port) => `python3 -c 'import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(60); a = socket.getaddrinfo("${NAME}", ${port}, socket.AF_INET6)[0][4]
s.sendto(b"six", a); d, f = s.recvfrom(64); print(d.decode(), f[0] == a[0], f[1])'`,
    /^six True \d+$/,
  );
  row(
    "a datagram that is refused fails at once",
    "dns",
    () => `python3 -c 'import socket
for family, address in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
  s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(60); s.connect((address, 9)); s.send(b"x")
  try: s.recv(9)
  except ConnectionRefusedError: print("refused")'`,
    /^refused\nrefused$/,
  );
  row(
    "ping, of both families: the host's own answer, and nobody's for another",
    "ping",
    () =>
      `for f in -4 -6; do ping $f -c 1 -W 60 ${NAME} | grep -o '1 received'; ping $f -c 1 -W 60 localhost | grep -o '1 received'; done; ping -c 1 -W 60 203.0.113.9 | grep -io 'filtered'; ping -c 1 -W 60 2001:db8::9 | grep -io 'prohibited'`,
    /^(1 received\n){4}filtered\nprohibited$/i,
  );

  test("what was reached is counted, and nothing is left", async (context: TestContext) => {
    const { connected, refused, sent, received } = egress.status;
    context.diagnostic(JSON.stringify({ connected, refused, sent, received }));
    assert.ok(connected > 10 && refused >= 3 && sent > 10_000);
  });
});
