/**
 * A fleet under a mixed load while its servers, its PostgreSQL and the ways between them fail at random. The servers are processes of their
 * own, their machines files; all else is what a server has. `STACYVM_FLEET_FAULTS=1000` for so many faults.
 */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { FaultyWire } from "./faulty-wire.ts";
import type { ServerReport, ServerStart } from "./fleet-fault-server.ts";
import { Postgres } from "./postgres.ts";

const SHORT = 8;
const FAULTS = Number(process.env.STACYVM_FLEET_FAULTS ?? SHORT);
/** How long what stands still or is slow does so, ms. */
const STILL_MS = FAULTS > SHORT ? 2_500 : 800;
/** Between two looks at whether all has healed. */
const ROUND = 25;
const WORKERS = 4;
/** The longest that a client waits for an answer. */
const CLIENT_MS = 8_000;
const HEAL_MS = 90_000;

let dir: string;
let postgres: Postgres;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stacyvm-faults-"));
  postgres = await Postgres.create();
});
after(async () => {
  await postgres?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

const pick = <T>(all: readonly T[]): T => all[Math.floor(Math.random() * all.length)] as T;
const between = (least: number, most: number): number => least + Math.random() * (most - least);

/** One that is started again as often as it is killed. */
class Member implements AsyncDisposable {
  readonly name: string;
  readonly role: ServerStart["role"];
  readonly home: string;
  readonly toDatabase: FaultyWire;
  readonly toNode: FaultyWire;
  child: ChildProcess | undefined;
  report: ServerReport | undefined;

  constructor(name: string, role: ServerStart["role"], home: string, toDatabase: FaultyWire, toNode: FaultyWire) {
    this.name = name;
    this.role = role;
    this.home = home;
    this.toDatabase = toDatabase;
    this.toNode = toNode;
  }

  static async create(name: string, role: ServerStart["role"]): Promise<Member> {
    const home = join(dir, name);
    await mkdir(home);
    const toDatabase = await FaultyWire.open({ path: join(postgres.dir, ".s.PGSQL.5432") });
    return new Member(name, role, home, toDatabase, await FaultyWire.open());
  }

  /** Until it listens. */
  async start(): Promise<void> {
    const given: ServerStart = {
      ...{ home: this.home, name: this.name, role: this.role },
      databaseUrl: `postgresql://stacyvm@127.0.0.1:${this.toDatabase.port}/postgres`,
      url: `http://127.0.0.1:${this.toNode.port}`,
    };
    const child = fork(join(import.meta.dirname, "fleet-fault-server.ts"), [JSON.stringify(given)]);
    this.child = child;
    const [report] = (await Promise.race([once(child, "message"), once(child, "exit").then(() => [undefined])])) as [
      ServerReport | undefined,
    ];
    assert.ok(report !== undefined, `${this.name} has not started`);
    this.report = report;
    this.toNode.target = { host: "127.0.0.1", port: Number(new URL(report.nodesUrl).port) };
  }

  async kill(): Promise<void> {
    const { child } = this;
    this.report = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  /** Its machines, by the ids of their sandboxes. */
  async machines(): Promise<string[]> {
    return await readdir(join(this.home, "machines"));
  }

  async id(): Promise<string> {
    return (await readFile(join(this.home, "node-id"), "utf8")).trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.toDatabase[Symbol.asyncDispose]();
    await this.toNode[Symbol.asyncDispose]();
  }
}

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: the test looks into every kind of answer
  body: any;
}

/** @returns `undefined` when there was no answer */
async function ask(
  member: Member,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer | undefined> {
  const { report } = member;
  if (report === undefined) return undefined;
  try {
    const asked = request(`${report.url}${path}`, {
      ...{ method, agent: false, signal: AbortSignal.timeout(CLIENT_MS) },
      headers: { "x-api-key": report.key, "content-type": "application/json", ...headers },
    });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    const [answer] = await once(asked, "response");
    const said = await text(answer);
    return { status: answer.statusCode, body: said === "" ? undefined : JSON.parse(said) };
  } catch {
    return undefined;
  }
}

interface Row {
  metadata: { token?: string };
}

/** All has healed, but a busy node may be a moment late with an answer. */
async function untilThere(look: () => Promise<Answer | undefined>): Promise<Answer | undefined> {
  const until = performance.now() + HEAL_MS;
  for (;;) {
    const answer = await look();
    if ((answer !== undefined && answer.status < 500) || performance.now() > until) return answer;
    await delay(100);
  }
}

/** What clients know: each sandbox has a token that nobody else has. */
class Load {
  readonly counts: Record<string, number> = {};
  /** Answers that must never be. */
  readonly wrong: string[] = [];
  /** Their creates were answered: token by id. */
  readonly alive = new Map<string, string>();
  /** Nobody knows: a call that ends it was not answered. */
  readonly ending = new Map<string, string>();
  readonly ended = new Set<string>();
  readonly #members: readonly Member[];
  #next = 0;

  constructor(members: readonly Member[]) {
    this.#members = members;
  }

  /** Whom a client asks: one that is not killed. */
  get #one(): Member {
    const there = this.#members.filter(({ report }) => report !== undefined);
    return pick(there.length === 0 ? this.#members : there);
  }

  async work(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      await pick([this.#create, this.#createOnce, this.#read, this.#read, this.#read, this.#list, this.#end]).call(
        this,
      );
      await delay(between(2, 30));
    }
  }

  #count(what: string, answer: Answer | undefined): void {
    const how = answer === undefined ? "no answer" : String(answer.status);
    this.counts[`${what} ${how}`] = (this.counts[`${what} ${how}`] ?? 0) + 1;
    if (answer !== undefined && ![200, 201, 204, 404, 502, 503].includes(answer.status)) {
      this.wrong.push(`${what}: ${answer.status} ${JSON.stringify(answer.body)}`);
    }
  }

  async #create(): Promise<void> {
    const token = `t${this.#next++}`;
    const body = { image: "image", name: token, metadata: { token } };
    const answer = await ask(this.#one, "POST", "/api/v1/sandboxes", body);
    this.#count("create", answer);
    if (answer?.status === 201) this.alive.set(answer.body.id, token);
  }

  /** As E2B's clients do: again with the same key, wherever, until it is answered. */
  async #createOnce(): Promise<void> {
    const token = `t${this.#next++}`;
    for (let attempt = 0; attempt < 5; attempt++) {
      const body = { templateID: "base", metadata: { token } };
      const answer = await ask(this.#one, "POST", "/sandboxes", body, { "idempotency-key": token });
      this.#count(attempt === 0 ? "create with a key" : "create with a key, again", answer);
      if (answer?.status === 201) {
        this.alive.set(answer.body.sandboxID, token);
        return;
      }
      await delay(between(50, 300));
    }
  }

  async #read(): Promise<void> {
    const [id, token] = pick([...this.alive]) ?? [];
    if (id === undefined || token === undefined) return;
    const answer = await ask(this.#one, "GET", `/api/v1/sandboxes/${id}`);
    this.#count("read", answer);
    this.#check(id, token, answer);
  }

  #check(id: string, token: string, answer: Answer | undefined): void {
    if (answer?.status === 200 && (answer.body.id !== id || answer.body.metadata.token !== token)) {
      this.wrong.push(`${id} (${token}) was asked for, and ${answer.body.id} came: ${JSON.stringify(answer.body)}`);
    }
    if (answer?.status === 404 && this.alive.has(id)) this.wrong.push(`${id} is said not to be there`);
  }

  async #list(): Promise<void> {
    const known = new Map([...this.alive, ...this.ending]);
    const answer = await ask(this.#one, "GET", "/api/v1/sandboxes");
    this.#count("list", answer);
    if (answer?.status !== 200) return;
    for (const { id, metadata, unreachable } of answer.body) {
      const token = known.get(id);
      if (token !== undefined && unreachable === undefined && metadata.token !== token)
        this.wrong.push(`${id} (${token}) is listed with the data of another one: ${JSON.stringify(metadata)}`);
    }
  }

  async #end(): Promise<void> {
    const [id, token] = pick([...this.alive]) ?? [];
    if (id === undefined || token === undefined || this.alive.size < 20) return;
    this.alive.delete(id);
    this.ending.set(id, token);
    const answer = await ask(this.#one, "DELETE", `/api/v1/sandboxes/${id}`);
    this.#count("end", answer);
    if (answer?.status !== 200) return;
    this.ending.delete(id);
    this.ended.add(id);
  }

  /** After all has healed: what was answered is so, seen from anywhere. */
  async settled(): Promise<void> {
    for (const [id, token] of this.alive) {
      const answer = await untilThere(() => ask(this.#one, "GET", `/api/v1/sandboxes/${id}`));
      if (answer?.status !== 200) this.wrong.push(`${id} was lost: ${answer?.status} ${JSON.stringify(answer?.body)}`);
      this.#check(id, token, answer);
    }
    for (const id of this.ended) {
      const answer = await untilThere(() => ask(this.#one, "GET", `/api/v1/sandboxes/${id}`));
      if (answer?.status !== 404) this.wrong.push(`${id} has ended, and is there: ${answer?.status}`);
    }
    this.ended.clear();
    for (const member of this.#members) {
      const listed: Row[] = (await ask(member, "GET", "/api/v1/sandboxes"))?.body ?? [];
      // Of what a busy node has not said in time, only the table's row is known.
      const tokens = listed.flatMap(({ metadata }) => metadata.token ?? []);
      if (new Set(tokens).size !== tokens.length) this.wrong.push(`${member.name}: a create has made two`);
    }
  }
}

/** Faults that can be made now, each with how it ends. */
function faults(members: readonly Member[]): [string, () => Promise<void>][] {
  const busy = new Set<unknown>();
  const alone =
    (what: () => Member | Postgres, fault: (of: never) => Promise<void>): (() => Promise<void>) =>
    async () => {
      const of = what();
      if (busy.has(of)) return;
      busy.add(of);
      try {
        await fault(of as never);
      } finally {
        busy.delete(of);
      }
    };
  const member = (): Member => pick(members);
  return [
    [
      "a server is killed",
      alone(member, async (of: Member) => {
        await of.kill();
        await delay(between(0, 800));
        await of.start();
      }),
    ],
    [
      "a server stands still",
      alone(member, async ({ child }: Member) => {
        child?.kill("SIGSTOP");
        await delay(between(100, STILL_MS));
        child?.kill("SIGCONT");
      }),
    ],
    [
      "PostgreSQL is killed",
      alone(
        () => postgres,
        async (of: Postgres) => {
          await of.kill();
          await delay(between(0, 600));
          await of.start();
        },
      ),
    ],
    [
      "PostgreSQL stands still",
      alone(
        () => postgres,
        async (of: Postgres) => {
          await of.stop();
          await delay(between(100, STILL_MS));
          await of.goOn();
        },
      ),
    ],
    ["connections to PostgreSQL are cut", async () => member().toDatabase.cut()],
    ["connections between servers are cut", async () => member().toNode.cut()],
    [
      "the way to PostgreSQL is slow",
      async () => {
        const { toDatabase } = member();
        toDatabase.slowMs = between(20, 300);
        await delay(between(200, STILL_MS));
        toDatabase.slowMs = 0;
      },
    ],
    [
      "the way to a server is slow",
      async () => {
        const { toNode } = member();
        toNode.slowMs = between(20, 300);
        await delay(between(200, STILL_MS));
        toNode.slowMs = 0;
      },
    ],
  ];
}

/** What differs between the table and the machines that are there. */
async function differences(members: readonly Member[]): Promise<string[]> {
  const rows: { id: string; node_id: string }[] = await postgres.query("SELECT id, node_id FROM stacyvm.sandboxes");
  const found: string[] = [];
  const owners = new Map<string, string>();
  for (const member of members) {
    const [machines, id] = await Promise.all([member.machines(), member.id()]);
    const own = new Set(rows.filter(({ node_id }) => node_id === id).map((row) => row.id));
    for (const each of machines) {
      const other = owners.get(each);
      assert.equal(other, undefined, `two servers have ${each}`);
      owners.set(each, member.name);
      if (!own.has(each)) found.push(`${each} of ${member.name} has no row`);
    }
    for (const each of own) if (!machines.includes(each)) found.push(`${each} of ${member.name} has no machine`);
  }
  return found;
}

test(`a fleet under load survives ${FAULTS} faults: nothing has two owners, nothing is lost, nobody is answered with another's data`, async () => {
  await using left = new AsyncDisposableStack();
  const members: Member[] = [];
  for (const [name, role] of [
    ["one", "node"],
    ["two", "node"],
    ["entrance", "entrance"],
    ["three", "node"],
  ].slice(0, FAULTS > SHORT ? 4 : 3) as [string, ServerStart["role"]][]) {
    members.push(left.use(await Member.create(name, role)));
  }
  await Promise.all(members.map((member) => member.start()));
  const load = new Load(members);
  const all = faults(members);
  const made: Record<string, number> = {};
  for (let done = 0; done < FAULTS; ) {
    const stop = new AbortController();
    const working = Promise.all(Array.from({ length: WORKERS }, () => load.work(stop.signal)));
    const under: Promise<void>[] = [];
    for (let i = 0; i < ROUND && done < FAULTS; i++, done++) {
      await delay(between(50, FAULTS > SHORT ? 700 : 300));
      // Each once before chance has it.
      const [name, make] = done < all.length ? (all[done] as (typeof all)[number]) : pick(all);
      made[name] = (made[name] ?? 0) + 1;
      under.push(make());
    }
    await Promise.all(under);
    stop.abort();
    await working;
    const until = performance.now() + HEAL_MS;
    for (;;) {
      const left_ = await differences(members);
      if (left_.length === 0) break;
      assert.ok(performance.now() < until, `it has not healed:\n${left_.join("\n")}`);
      await delay(100);
    }
    // Each server knows that all are there again.
    for (const member of members) {
      while ((await ask(member, "GET", "/api/v1/sandboxes"))?.status !== 200) {
        assert.ok(performance.now() < until, `${member.name} does not answer`);
        await delay(100);
      }
    }
    await load.settled();
    assert.deepEqual(load.wrong, []);
    if (FAULTS > ROUND) console.log(`${done} faults, ${load.alive.size} sandboxes`);
  }
  const told = (counts: Record<string, number>): string[] =>
    Object.entries(counts)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, count]) => `  ${String(count).padStart(6)}  ${what}`);
  console.log(["faults:", ...told(made), "calls:", ...told(load.counts)].join("\n"));
  assert.ok((load.counts["create 201"] ?? 0) > 0 && (load.counts["read 200"] ?? 0) > 0);
});
