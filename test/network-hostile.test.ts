/**
 * A hostile program inside a real guest, against every way out of it: it gets no more than its rules, and what comes after it has its network.
 * The rules permit all, so that what stands in the way is what is tested; what must not be reached is a trap on this host. The longer
 * lists, and names that change between two questions, are in src/egress/hostile.test.ts.
 */
import assert from "node:assert/strict";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket, type Server as TcpServer } from "node:net";
import { after, before, describe, test } from "node:test";
import { Server } from "./server-support.ts";

const OUTSIDE = "127.8.8.7";
const CONFIG = `
network: { private: ["${OUTSIDE}"], names: { right.test: "${OUTSIDE}", inside.test: "127.0.0.1", lan.test: "10.0.0.5" } }
warm: { adaptive: false }
`;
/** This host by other names, private networks, and services that tell a cloud's secrets. */
const PLACES = [
  ...["127.0.0.1", "localhost", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "::"],
  ...["::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::1", "inside.test", "INSIDE.test."],
  ...["lan.test", "10.0.0.5", "192.168.0.1", "100.64.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1"],
  ...["right.test@127.0.0.1", "127.0.0.1#.right.test", "127.0.0.1%00.right.test", "127.0.0.1\\t.right.test"],
];
const PROGRAM = `
import json, select, socket, struct, sys
port, places = int(sys.argv[1]), json.loads(sys.argv[2])
PROXY = ("127.0.0.1", 3128)
def said(to, data, half=False):
    try:
        with socket.create_connection(to, timeout=60) as s:
            s.sendall(data)
            if half: s.shutdown(socket.SHUT_WR)
            out = b""
            while more := s.recv(65536): out += more
            return out
    except Exception as e:
        return str(e).encode()
heard = {}
for place in places:
    at = f"[{place}]:{port}" if ":" in place else f"{place}:{port}"
    heard["tunnel " + place] = said(PROXY, f"CONNECT {at} HTTP/1.1\\r\\nHost: right.test\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n".encode(), True)
    heard["request " + place] = said(PROXY, f"GET http://{at}/ HTTP/1.1\\r\\nHost: right.test\\r\\nConnection: close\\r\\n\\r\\n".encode())
    heard["connection " + place] = said((place, port), b"GET / HTTP/1.1\\r\\n\\r\\n", True)
    try:
        family, kind, _, _, to = socket.getaddrinfo(place, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            s.connect(to)
            s.send(b"hello")
            heard["datagram " + place] = s.recv(1000)
    except Exception as e:
        heard["datagram " + place] = str(e).encode()
inner = f"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
post = f"POST http://right.test:{port}/ HTTP/1.1\\r\\nHost: right.test\\r\\n"
for what, request in {
    "length and chunks": post + f"Content-Length: {len(inner) + 5}\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" + inner,
    "chunks, oddly": post + "Transfer-Encoding: xchunked\\r\\n\\r\\n0\\r\\n\\r\\n" + inner,
    "two lengths": post + f"Content-Length: 0\\r\\nContent-Length: {len(inner)}\\r\\n\\r\\n" + inner,
    "a folded line": post + "X: a\\r\\n Content-Length: 0\\r\\n\\r\\n" + inner,
    "a bare line feed": post + "X: a\\nContent-Length: 0\\n\\n" + inner,
    "in the path": f"GET http://right.test:{port}/ HTTP/1.1\\r\\n\\r\\n" + inner,
}.items():
    heard["smuggled: " + what] = said(PROXY, request.encode(), True)
ask = lambda name: b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0\\0\\1\\0\\1"
stands = socket.gethostbyname("right.test")
hostile = [b"", b"\\0" * 7, bytes.fromhex("000701000001000000000000c00c00010001"), bytes.fromhex("000701000001000000000000c00ec00c00010001"),
    bytes.fromhex("0007010000010000000000003f61"), ask("inside.test"), ask("lan.test"), ask(".".join(["a"] * 120)),
    ask("right.test")[:4] + struct.pack(">H", 2001) + ask("right.test")[6:] + b"\\xc0\\x0c\\0\\1\\0\\1" * 2000,
    ask("right.test")[:10] + b"\\xff\\xff" + ask("right.test")[12:], ask("right.test")[:2] + b"\\x81\\x80" + ask("right.test")[4:]]
for question in hostile:
    for server in ("127.0.0.53", "203.0.113.53"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                for _ in range(4): s.sendto(question, (server, 53))
            except OSError: pass
        heard[f"question {len(question)} {server}"] = said((server, 53), struct.pack(">H", len(question)) + question, True)
flood = []
for i in range(300):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(PROXY if i % 3 == 0 else (stands if i % 3 == 1 else f"203.0.113.{i % 250}", port))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for to in ((f"203.0.113.{i % 250}", 1 + i), (stands, port), ("127.0.0.53", 53)):
        try: u.sendto(ask(f"flood{i}.test"), to)
        except OSError: pass
    flood += [s, u]
_, ready, _ = select.select([], flood[::2], [], 60)
for s in ready:
    try: s.send(b"CONNECT slow.te")
    except OSError: pass
for s in flood: s.close()
trapped = [what for what, text in heard.items() if b"TRAP" in text]
answers = said((stands, port), b"GET / HTTP/1.1\\r\\n\\r\\n"), said(PROXY, f"CONNECT right.test:{port} HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n".encode())
print(json.dumps({"trapped": trapped, "tried": len(heard), "same": socket.gethostbyname("right.test") == stands, "answers": [a.decode("latin1") for a in answers]}))
`;

/** Says who it is to whatever comes, by TCP and by UDP at the same port, and remembers it. */
class Place {
  readonly heard: string[] = [];
  readonly #servers: (TcpServer | DatagramSocket)[] = [];
  readonly #open = new Set<Socket>();
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async listen(address: string, port = 0): Promise<number> {
    const tcp = createServer((socket) => {
      this.#open.add(socket);
      this.heard.push(address);
      socket.on("error", () => {});
      let text = "";
      socket.on("data", (data) => {
        text += data;
        if (text.includes("\r\n\r\n")) socket.end(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${this.#name}`);
      });
    });
    tcp.listen(port, address);
    await once(tcp, "listening");
    const { port: taken } = tcp.address() as AddressInfo;
    const udp = createSocket(address.includes(":") ? "udp6" : "udp4");
    udp.on("message", (_, from) => {
      this.heard.push(`udp ${address}`);
      udp.send(this.#name, from.port, from.address);
    });
    udp.bind(taken, address);
    await once(udp, "listening");
    this.#servers.push(tcp, udp);
    return taken;
  }

  close(): void {
    for (const socket of this.#open) socket.destroy();
    for (const server of this.#servers) server.close();
  }
}

describe("a hostile program in a guest", () => {
  const trap = new Place("TRAP");
  const outside = new Place("RIGHT");
  let server: Server;
  let port = 0;
  before(async () => {
    port = await trap.listen("127.0.0.1");
    await trap.listen("::1", port);
    await outside.listen(OUTSIDE, port);
    server = await Server.create(CONFIG);
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    trap.close();
    outside.close();
  });

  test("gets no more than its rules by addresses, names, smuggled requests, questions and floods; the next program has its network", async () => {
    const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
    const spawned = { image: "stacyvm/python", memory_mb: 256, allowed_hosts: ["*:*", "*:*/udp"] };
    const [{ id }, { id: neighbour }] = [
      await good("POST", "/sandboxes", spawned),
      await good("POST", "/sandboxes", spawned),
    ];
    await good("POST", `/sandboxes/${id}/files`, { path: "/hostile.py", content: PROGRAM });
    const run = (of: string, args: string[]): Promise<{ exit_code: number; stdout: string; stderr: string }> =>
      good("POST", `/sandboxes/${of}/exec`, { command: "python3", args, mode: "argv", timeout: "8m" });
    const { exit_code, stdout, stderr } = await run(id, ["/hostile.py", `${port}`, JSON.stringify(PLACES)]);
    assert.equal(exit_code, 0, stderr);
    const { trapped, tried, same, answers } = JSON.parse(stdout);
    assert.deepEqual(trapped, []);
    assert.deepEqual(trap.heard, []);
    assert.ok(tried >= 4 * PLACES.length + 6, `${tried}`);
    assert.ok(same, "the name stands for what it did");
    for (const answer of answers) assert.match(answer, /RIGHT$/);
    const ask = `import socket; s = socket.create_connection(("right.test", ${port})); s.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n"); print(s.recv(1000))`;
    assert.match((await run(neighbour, ["-c", ask])).stdout, /RIGHT/);
    const { refused } = await good("GET", `/sandboxes/${id}/network`);
    assert.ok(refused > PLACES.length, `${refused}`);
    for (const each of [id, neighbour]) await good("DELETE", `/sandboxes/${each}`);
  });
});
