/**
 * `firecracker.jail: true`: a real server whose machines are all jailed, on the same path as others. As root by the real jailer; for an
 * ordinary user, as whom firecracker-cell.test.ts runs it again, each in a cell.
 */
import assert from "node:assert/strict";
import { readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { cellState } from "../src/vmm/cell.ts";
import { type Ask, CRASH_GUESTS } from "./crash-guests.ts";
import { EventStream } from "./event-stream.ts";
import { largestFile, whyNot, whyNotLinux } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

const UID_BASE = 310_000;
/** A template has no size of disk of its own. */
const DISK_MIB = 256;
const CONFIG = `
providers: { default: firecracker }
firecracker: { jail: true, jail_uid_base: ${UID_BASE} }
warm: { adaptive: false }
defaults: { disk_size_mb: ${DISK_MIB} }
`;
const isRoot = process.getuid?.() === 0;
const state = isRoot ? undefined : await cellState();
const noJail = state?.usable === false ? `no cell on this host: ${state.reason}` : false;
const guests = [
  { name: "the bare guest", guest: CRASH_GUESTS.firecracker, skip: (await whyNot()) ?? noJail },
  { name: "Linux", guest: CRASH_GUESTS["firecracker-linux"], skip: (await whyNotLinux({ long: true })) ?? noJail },
];

for (const { name, guest, skip } of guests) {
  describe(`a server whose machines are jailed: ${name}`, { skip }, () => {
    let server: Server;
    before(async () => {
      // The golden machine is a jailed one, too.
      server = await Server.create(CONFIG, { shares: false });
    });
    after(() => server[Symbol.asyncDispose]());

    // biome-ignore lint/suspicious/noExplicitAny: any answer's body
    const good = async (method: string, path: string, body?: unknown): Promise<any> => {
      const answer = await server.call(method, path, body);
      assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
      return answer.body;
    };
    const asking =
      (id: string): Ask =>
      async (method, path, body) => ({ body: await good(method, `/sandboxes/${id}${path}`, body) });
    const spawn = async (path: string, more: object = {}): Promise<string> => {
      const { id, boot } = await good("POST", "/sandboxes", { ...guest.spawn, ...more });
      assert.equal(boot.path, path, JSON.stringify(boot));
      return id;
    };
    const networks = new Set<string>();
    /** Owner of the machine's process, which must be the only one there and have its own root. */
    const owner = async (id: string): Promise<number> => {
      const pids = await processesIn(join(server.root, "sandboxes", id));
      assert.equal(pids.length, 1);
      const status = await readFile(`/proc/${pids[0]}/status`, "utf8");
      assert.match(status, /^CapEff:\t0+$/m);
      assert.notEqual((await stat(`/proc/${pids[0]}/root/`)).ino, (await stat("/")).ino);
      // Its disk: its memory and state are less.
      assert.equal(await largestFile(pids[0] ?? 0), DISK_MIB * 2 ** 20);
      networks.add(await readlink(`/proc/${pids[0]}/ns/net`));
      return Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    };

    test("cold, restored, warm ones, forks, from a checkpoint, woken and adopted ones: each has a root of its own, and as root a user", async () => {
      // Where a kernel is interpreted a cold boot takes a minute and more, and the golden machine's is one.
      const cold = guest === CRASH_GUESTS.firecracker ? [await spawn("cold")] : [];
      await good("POST", "/snapshots", guest.spawn);
      const restored = await spawn("restored", { forkable: true });
      const warm = await (async () => {
        await using events = await EventStream.open(server.url, { type: "pool.filled" });
        const { disk_mb, ...shape } = { disk_mb: DISK_MIB, ...guest.spawn };
        assert.equal(disk_mb, DISK_MIB);
        await good("POST", "/templates", { ...shape, name: "ready", pool_size: 1 });
        await events.next((event) => event.data?.warm === 1);
        return spawn("warm");
      })();
      await good("DELETE", "/templates/ready");
      const mine = asking(restored);
      await guest.begin(mine);
      assert.equal(await guest.count(mine), 1);
      const forks = (await good("POST", `/sandboxes/${restored}/fork`, { count: 2 })).sandboxes as { id: string }[];
      for (const { id } of forks) assert.equal(await guest.count(asking(id)), 2);
      const { id: checkpoint } = await good("POST", `/sandboxes/${restored}/checkpoints`, {});
      assert.equal(await guest.count(mine), 2);
      await good("POST", `/sandboxes/${restored}/restore`, { checkpoint });
      assert.equal(await guest.count(mine), 2, "as it was at the checkpoint");
      const { id: copy } = await good("POST", "/sandboxes", { checkpoint });
      assert.equal(await guest.count(asking(copy)), 2);
      await good("POST", `/sandboxes/${restored}/suspend`);
      assert.deepEqual(await processesIn(join(server.root, "sandboxes", restored)), []);
      await good("POST", `/sandboxes/${restored}/resume`);
      assert.equal(await guest.count(mine), 3);
      const asleep = forks[0]?.id as string;
      await good("POST", `/sandboxes/${asleep}/suspend`);
      await server.stop("SIGKILL");
      await server.start();
      assert.equal(await guest.count(mine), 4);
      await good("POST", `/sandboxes/${asleep}/resume`);
      assert.equal(await guest.count(asking(asleep)), 3);
      const ids = [...cold, restored, warm, copy, ...forks.map(({ id }) => id)];
      const uids = await Promise.all(ids.map(owner));
      const late = await spawn("restored");
      const lateUid = await owner(late);
      if (isRoot) {
        assert.equal(new Set(uids).size, ids.length);
        assert.ok(uids.every((uid) => uid >= UID_BASE && uid < UID_BASE + 10_000));
        // The next daemon knows whose users are taken.
        assert.ok(!uids.includes(lateUid));
      } else assert.deepEqual(new Set([...uids, lateUid]), new Set([process.getuid?.()]));
      // One of each server, and none of them the host's.
      assert.equal(networks.size, 2);
      assert.ok(!networks.has(await readlink("/proc/self/ns/net")));
      ids.push(late);
      for (const id of ids) {
        const { stdout } = await good("POST", `/sandboxes/${id}/exec`, { command: "hostname", args: [], mode: "argv" });
        assert.equal(stdout.trim(), id);
        await good("DELETE", `/sandboxes/${id}`);
      }
      assert.deepEqual(await server.machines(), []);
    });

    test("a volume is with a jailed machine, its fork has a clone, what starts from a checkpoint what was saved, and it is there for the next one", async () => {
      await good("POST", "/volumes", { name: "data", size_mb: 64 });
      const volumes = [{ name: "data", path: "/data" }];
      const bare = guest === CRASH_GUESTS.firecracker;
      const run = async (id: string, ...args: string[]): Promise<string> => {
        const [command = "", ...rest] = args;
        const asked = { command, args: rest, mode: "argv" };
        const { exit_code, stdout, stderr } = await good("POST", `/sandboxes/${id}/exec`, asked);
        assert.equal(exit_code, 0, stderr);
        return stdout.trim();
      };
      // The bare guest has drives, and no filesystems.
      const write = (id: string, word: string): Promise<string> =>
        bare ? run(id, "block", "write", "2", word) : run(id, "sh", "-c", `echo ${word} > /data/word`);
      const read = (id: string): Promise<string> =>
        bare ? run(id, "block", "read", "2") : run(id, "cat", "/data/word");
      const { id } = await good("POST", "/sandboxes", { ...guest.spawn, volumes });
      await write(id, "first");
      const { sandboxes } = await good("POST", `/sandboxes/${id}/fork`, {});
      const [copy] = sandboxes;
      const { id: checkpoint } = await good("POST", `/sandboxes/${id}/checkpoints`, {});
      await write(id, "later");
      assert.equal(await read(copy.id), "first");
      await write(copy.id, "own");
      const late = await good("POST", "/sandboxes", { checkpoint });
      assert.equal(await read(late.id), "first");
      assert.equal(await read(id), "later");
      const uids = await Promise.all([id, copy.id, late.id].map(owner));
      if (isRoot) assert.equal(new Set(uids).size, 3);
      await good("POST", `/sandboxes/${id}/suspend`);
      await good("POST", `/sandboxes/${id}/resume`);
      assert.equal(await read(id), "later");
      for (const each of [id, copy.id, late.id]) await good("DELETE", `/sandboxes/${each}`);
      await good("DELETE", `/checkpoints/${checkpoint}`);
      for (const read_only of [true, false]) {
        const next = await good("POST", "/sandboxes", { ...guest.spawn, volumes: [{ ...volumes[0], read_only }] });
        assert.equal(await read(next.id), "later");
        await good("DELETE", `/sandboxes/${next.id}`);
      }
      for (const { name } of await good("GET", "/volumes")) await good("DELETE", `/volumes/${name}`);
    });
  });
}
