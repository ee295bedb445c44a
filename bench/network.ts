/**
 * What a sandbox's network costs and carries: spawns with and without one in turns, requests of a program in the guest to a server on
 * this host, and bytes in both directions; beside them a command that does nothing, and a file of the guest's that is read.
 * `npm run -s bench -- network [--json] [ROUNDS]`
 */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_NETWORK, Network } from "../src/egress/network.ts";
import { certify, makeAuthority } from "../src/egress/secrets/authority.ts";
import { SecretHosts } from "../src/egress/secrets/secret.ts";
import { dataPaths } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { newSandboxId } from "../src/sandboxes/record.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { borrow } from "./borrow.ts";
import type { BenchContext, Suite } from "./harness.ts";

/** On loopback, and not among what programs ask without a proxy. */
const ADDRESS = "127.8.8.8";
const BODY = Buffer.alloc(32 * 2 ** 20, "stacyvm ");
const PARALLEL = 8;
const SECRET_HOST = "secret.test";
/**
 * In the guest, by a program that knows no proxy: ms of each of N requests over one connection that is kept, with a secret put in and to
 * the same server without one; and of N connections one after the other, by name, by the address
 * that stands for the name (without questions for it) and by the proxy. All in turns: code that an emulated
 * processor meets for the first time is slow, whichever comes first.
 */
const PROGRAM = `
import http.client, json, socket, ssl, sys, time
port, plain_host, plain_port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def timed(work):
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)
def requests(host, context):
    connection = http.client.HTTPSConnection(host, int(port), context=context)
    def ask():
        connection.request("GET", "/")
        connection.getresponse().read()
    ask()
    return ask
def connect(through, host=plain_host):
    def work():
        with socket.create_connection(through or (host, plain_port)) as s:
            if through:
                s.sendall(f"CONNECT {plain_host}:{plain_port} HTTP/1.1\\r\\n\\r\\n".encode())
                s.recv(1000)
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            while s.recv(1000): pass
    return work
ways = {
    "secret.request": requests("${SECRET_HOST}", ssl.create_default_context()),
    "opaque.request": requests("plain.test", ssl._create_unverified_context()),
    "connection.transparent": connect(None),
    "connection.address": connect(None, socket.gethostbyname(plain_host)),
    "connection.proxy": connect(("127.0.0.1", 3128)),
}
taken = {name: [] for name in ways}
for _ in range(count):
    for name, work in ways.items(): taken[name].append(timed(work))
print(json.dumps(taken))
`;

export const suite: Suite = {
  name: "network",
  about: "what a sandbox's network costs a spawn, and how fast requests and bytes go through it",
  async run(context) {
    const rounds = Number(context.args[0] ?? 30);
    context.guest = "linux";
    const server = createServer((request, response) => {
      request.resume();
      if (request.url === "/big") response.end(BODY);
      else request.once("end", () => response.end("small"));
    });
    server.listen(0, ADDRESS);
    await once(server, "listening");
    const host = `${ADDRESS}:${(server.address() as AddressInfo).port}`;
    const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "bench-network-"));
    await borrow(root);
    const paths = dataPaths(root);
    const world = await makeAuthority();
    const secure = createTlsServer(await certify(world, SECRET_HOST), (request, response) => {
      request.resume();
      response.end("small");
    });
    secure.keepAliveTimeout = 60_000;
    secure.listen(0, ADDRESS);
    await once(secure, "listening");
    const { port } = secure.address() as AddressInfo;
    const names = { [SECRET_HOST]: ADDRESS, "plain.test": ADDRESS };
    const network = new Network({ ...DEFAULT_NETWORK, private: [ADDRESS], names, trusted: [world.certificate] });
    network.vault = {
      of: () => [
        {
          name: "KEY",
          placeholder: "placeholder",
          hosts: new SecretHosts([`${SECRET_HOST}:${port}`]),
          placement: { kind: "bearer" },
          read: async () => ({ value: "value-of-the-secret" }),
        },
      ],
    };
    const provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths, network });
    try {
      await measure(context, provider, host, rounds);
      await measureSecrets(context, provider, `${port}`, host, rounds);
    } finally {
      await provider.close();
      server.close();
      secure.closeAllConnections();
      secure.close();
      await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  },
};

async function measure(
  context: BenchContext,
  provider: ReturnType<typeof createMicrovmProvider>,
  host: string,
  rounds: number,
): Promise<void> {
  const spec = { image: "stacyvm/busybox", memoryMiB: 256, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
  const timed = async (name: string, work: () => Promise<unknown>, amount?: number): Promise<void> => {
    if (context.signal.aborted) return;
    const begun = performance.now();
    try {
      await work();
      const ms = performance.now() - begun;
      if (amount === undefined) context.sample(name, ms);
      else context.sample(name, amount / 1e3 / ms, "MB/s");
    } catch (error) {
      context.failure(name, error);
    }
  };
  const run = async (machine: SandboxMachine, command: string): Promise<void> => {
    const { exitCode, stderr } = await machine.agent.exec({ argv: ["sh", "-c", command] });
    if (exitCode !== 0) throw new Error(`${command} ended with ${exitCode}: ${stderr}`);
  };

  context.progress("spawns, with a network and without in turns");
  await provider.buildSnapshot(spec);
  const kinds: [name: string, allowedHosts: string[]][] = [
    ["restore", []],
    ["restore.network", [host]],
  ];
  for (let i = 0; i < rounds; i++) {
    for (const [name, allowedHosts] of i % 2 === 0 ? kinds : kinds.toReversed()) {
      let machine: SandboxMachine | undefined;
      const begun = performance.now();
      await timed(`${name}.total`, async () => {
        machine = await provider.spawn({ ...spec, id: newSandboxId(), allowedHosts });
      });
      if (machine === undefined) continue;
      for (const [phase, ms] of Object.entries(machine.boot.phases)) context.sample(`${name}.${phase}`, ms);
      await run(machine, "echo").then(
        () => context.sample(`${name}.total.first-exec`, performance.now() - begun),
        (error) => context.failure(name, error),
      );
      await machine.destroy();
    }
  }

  context.progress("requests and bytes");
  // The same server by a name, for programs that know no proxy.
  const named = `plain.test:${host.split(":")[1]}`;
  const machine = await provider.spawn({ ...spec, id: newSandboxId(), allowedHosts: [host, named] });
  await run(machine, `dd if=/dev/zero of=/root/big bs=1M count=${BODY.length / 2 ** 20} 2>/dev/null`);
  const get = (path: string): string => `wget -q -O /dev/null http://${host}${path}`;
  for (let i = 0; i < rounds; i++) {
    await timed("command", () => run(machine, "true"));
    await timed("request", () => run(machine, get("/small")));
    await timed(`request.x${PARALLEL}`, () =>
      run(machine, `for i in $(seq ${PARALLEL}); do ${get("/small")} & done; wait`),
    );
  }
  // In turns, each first as often as the other.
  const upload = (url: string): string => `wget -q -O /dev/null --post-file /root/big ${url}`;
  const direct = "env -u http_proxy ";
  // By the address that stands for the name: two questions for it would be a tenth of what is measured.
  const found = await machine.agent.exec({
    argv: ["sh", "-c", "nslookup -type=a plain.test | awk '/^Address/ { a = $NF } END { print a }'"],
  });
  const address = `${found.stdout.toString().trim()}:${host.split(":")[1]}`;
  const ways: [name: string, command: string][] = [
    ["download", get("/big")],
    ["download.transparent", `${direct}wget -q -O /dev/null http://${address}/big`],
    ["upload", upload(`http://${host}/`)],
    ["upload.transparent", `${direct}${upload(`http://${address}/`)}`],
  ];
  for (let i = 0; i < Math.ceil(rounds / 3); i++) {
    await timed("file.read", () => run(machine, "cat /root/big >/dev/null"), BODY.length);
    for (const [name, command] of i % 2 === 0 ? ways : ways.toReversed())
      await timed(name, () => run(machine, command), BODY.length);
  }
  await machine.destroy();
}

async function measureSecrets(
  context: BenchContext,
  provider: ReturnType<typeof createMicrovmProvider>,
  port: string,
  host: string,
  rounds: number,
): Promise<void> {
  context.progress("secrets");
  const spec = { image: "stacyvm/python", memoryMiB: 256, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
  const plainPort = host.split(":")[1] ?? "";
  const allowedHosts = [`${SECRET_HOST}:${port}`, `plain.test:${port}`, `plain.test:${plainPort}`];
  await provider.buildSnapshot(spec);
  for (let i = 0; i < Math.ceil(rounds / 3); i++) {
    for (const [name, secrets] of [
      ["restore.python", undefined],
      ["restore.python.secret", { KEY: "placeholder" }],
    ] as const) {
      const begun = performance.now();
      const machine = await provider.spawn({
        ...spec,
        id: newSandboxId(),
        allowedHosts,
        ...(secrets ? { secrets } : {}),
      });
      context.sample(`${name}.total`, performance.now() - begun);
      await machine.destroy();
    }
  }
  const machine = await provider.spawn({ ...spec, id: newSandboxId(), allowedHosts, secrets: { KEY: "placeholder" } });
  const argv = ["python3", "-c", PROGRAM, port, "plain.test", plainPort, "250"];
  for (let i = 0; i < 4; i++) {
    const { exitCode, stdout, stderr } = await machine.agent.exec({ argv });
    if (exitCode !== 0) throw new Error(`the program ended with ${exitCode}: ${stderr}`);
    for (const [name, values] of Object.entries(JSON.parse(String(stdout)) as Record<string, number[]>)) {
      for (const ms of values) context.sample(name, ms);
    }
  }
  await machine.destroy();
}
