/** Ten copies of a sandbox in whose memory a Python program is at work: each goes on with what it held, in its own way. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { whyNotLinux } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

/**
 * Holds a secret of its own and a list that grows with what it is told; says both, and what it draws: from the kernel, from a generator of its own that
 * notices nothing, and from one that is seeded anew when the file that says so changes.
 */
const PROGRAM = `
import ctypes, os, random, secrets
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(watch, b"/run/stacyvm/generation", 2) # IN_MODIFY
def another():
    try: return len(os.read(watch, 4096)) > 0
    except BlockingIOError: return False
own = secrets.token_hex(8)
told = []
unaware, aware = random.Random(own), random.Random(own)
os.mkfifo("/tmp/ask"); os.mkfifo("/tmp/say")
while True:
    told.append(open("/tmp/ask").read().strip())
    if another(): aware.seed(os.urandom(32))
    open("/tmp/say", "w").write(f"{own} {','.join(told)} {secrets.token_hex(8)} {unaware.random()} {aware.random()}\\n")
`;

function forks(provider: "qemu" | "firecracker", copies: number): void {
  let server: Server;
  before(async () => {
    server = await Server.create("warm: { adaptive: false }\n");
  });
  after(() => server[Symbol.asyncDispose]());

  test(`${copies} copies and their source remember the same, and go on differently`, async () => {
    const shape = { image: "stacyvm/python", memory_mb: 256, provider };
    const built = await server.call("POST", "/snapshots", shape);
    assert.ok(built.status < 300, JSON.stringify(built.body));
    const spawned = await server.call("POST", "/sandboxes", shape);
    assert.equal(spawned.status, 201, JSON.stringify(spawned.body));
    assert.equal(spawned.body.boot.vmm, provider);
    const { id } = spawned.body;
    const sh = async (of: string, command: string): Promise<string> => {
      const { body } = await server.call("POST", `/sandboxes/${of}/exec`, { command });
      assert.equal(body.exit_code, 0, JSON.stringify(body));
      return body.stdout.trim();
    };
    /** @returns what it made itself, what it was told, what it drew from the three generators */
    const tell = async (of: string, word: string): Promise<string[]> =>
      (await sh(of, `echo ${word} > /tmp/ask; cat /tmp/say`)).split(" ");

    await server.call("POST", `/sandboxes/${id}/files`, { path: "/tmp/program.py", content: PROGRAM });
    await server.call("POST", `/sandboxes/${id}/processes`, { command: "python3 /tmp/program.py" });
    await sh(id, "until [ -p /tmp/say ]; do sleep 0.1; done");
    const [own] = await tell(id, "first");
    const forked = await server.call("POST", `/sandboxes/${id}/fork`, { count: copies });
    assert.ok(forked.status < 300, JSON.stringify(forked.body));
    const ids = [id, ...forked.body.sandboxes.map((copy: { id: string }) => copy.id)];
    assert.equal(new Set(ids).size, copies + 1);
    const answers = await Promise.all(ids.map((of, i) => tell(of, `word${i}`)));
    assert.deepEqual(
      answers.map(([made, told]) => [made, told]),
      ids.map((_, i) => [own, `first,word${i}`]),
    );
    // The kernel's generator is fed anew in each: nothing that is drawn after the fork is drawn twice.
    assert.equal(new Set(answers.map(([, , drawn]) => drawn)).size, copies + 1);
    // A generator in the program's own memory goes on in each as if it were alone (docs/security.md), unless the program looks at the file.
    assert.equal(new Set(answers.map((each) => each[3])).size, 1);
    assert.equal(new Set(answers.map((each) => each[4])).size, copies + 1);
    assert.equal(new Set(await Promise.all(ids.map((of) => sh(of, "hostname")))).size, copies + 1);
    for (const of of ids) assert.equal((await server.call("DELETE", `/sandboxes/${of}`)).status, 200);
  });
}

describe("forks of a running Python program under QEMU", () => forks("qemu", 10));

describe(
  "forks of a running Python program under Firecracker",
  { skip: (await whyNotLinux({ long: true })) ?? false },
  () => forks("firecracker", 3),
);
