/**
 * What there is in the whole fleet: each node says what it has, and of sandboxes the table does for those that do not answer. A list that has
 * pages asks each node for as much as a page may need.
 */
import type { Logger } from "pino";
import type { z } from "zod";
import type { Api } from "../api/endpoint.ts";
import { json } from "../api/endpoint.ts";
import { SandboxBody } from "../api/schemas/sandbox.ts";
import { vouch } from "../api/vouched.ts";
import { byPlace, pageOfAll } from "../e2b/control/paging.ts";
import { type CallersParts, callerIn, claimOf, headersOf, type Known, ownerNamed } from "./callers.ts";
import type { Directory, FleetNode, Ownership } from "./contract.ts";
import type { Call, Forwarder } from "./forwarding/forwarder.ts";
import type { Probes } from "./forwarding/probes.ts";
import type { Listed, Target } from "./forwarding/target.ts";
import { sayResponse } from "./said.ts";
import type { Assertions } from "./trust/assertions.ts";

export interface ListsParts extends CallersParts {
  app: Pick<Api, "fetch">;
  directory: Directory;
  forwarder: Forwarder;
  probes: Probes;
  assertions: Assertions;
  log: Logger;
}

/** The longest wait for a node, ms. */
const ANSWER_MS = 5_000;

/** Headers of an answer that are about its own rows. */
const OF_ONE: ReadonlySet<string> = new Set(["content-length", "content-type", "x-next-token", "x-total-running"]);

type Row = Record<string, unknown>;

interface Part {
  rows: Row[];
  running: number;
  /** Of its first page. */
  headers: Headers;
  /** It has more than was asked for. */
  more: boolean;
}

/** What is asked of each node, and how much of it is enough. */
interface Wanted {
  of: Listed;
  e2b: boolean;
  url: URL;
  /** Absent: all. */
  enough?: (rows: Row[]) => boolean;
}

export class Lists {
  readonly #parts: ListsParts;

  constructor(parts: ListsParts) {
    this.#parts = parts;
  }

  /** @returns whether it was answered; else the application has it */
  async list(call: Call, { of, e2b }: Extract<Target, { kind: "list" }>): Promise<boolean> {
    const { incoming } = call;
    const { directory, app } = this.#parts;
    const known = await callerIn(incoming, this.#parts);
    if (known === undefined) return false;
    vouch(incoming, { caller: known.caller });
    const url = new URL(incoming.url ?? "/", `http://${incoming.headers.host ?? "localhost"}`);
    const paged = e2b && url.pathname !== "/sandboxes";
    const up = url.searchParams.get("order") === "asc";
    const [limit, token] = ["limit", "nextToken"].map((name) => url.searchParams.get(name) ?? undefined);
    const { size, follows, next } = pageOfAll(limit, token, up);
    const ofPage = (rows: Row[]): Row[] => (paged ? rows.filter((row) => follows(placed(row))) : rows);
    const wanted: Wanted = { of, e2b, url, ...(paged && { enough: (rows) => ofPage(rows).length >= size }) };
    const own = await collect(wanted, async (path) => {
      const response = await app.fetch(new Request(path, { headers: headersOf(incoming) }), { incoming } as never);
      return { status: response.status, headers: response.headers, text: await response.text() };
    });
    const others = directory.nodes().filter(({ id, role }) => id !== directory.self.id && role === "node");
    // What is wrong with the request each node would say, too.
    const parts = "refused" in own ? [] : await Promise.all(others.map((node) => this.#of(call, known, node, wanted)));
    const all: Part[] = [];
    for (const part of [own, ...parts]) {
      if ("refused" in part) {
        await sayResponse(call, part.refused);
        return true;
      }
      all.push(part);
    }
    const headers = Object.fromEntries([...(all[0] as Part).headers].filter(([name]) => !OF_ONE.has(name)));
    const rows = unique(all.flatMap((part) => part.rows));
    await sayResponse(call, paged ? page() : whole());
    return true;

    function page(): Response {
      const found = ofPage(rows).toSorted((a, b) => byPlace(placed(a), placed(b), up));
      const last = found[size - 1];
      const more = last !== undefined && (found.length > size || all.some((part) => part.more));
      const running = String(all.reduce((sum, part) => sum + part.running, 0));
      const next_ = more ? { "x-next-token": next(placed(last)) } : {};
      return Response.json(found.slice(0, size), { headers: { ...headers, "x-total-running": running, ...next_ } });
    }
    function whole(): Response {
      if (of === "stats") return json(Object.fromEntries(rows.map(({ id, stats }) => [id, stats])), 200, headers);
      const sorted = rows.toSorted(e2b ? byStart : byCreation);
      return e2b ? Response.json(sorted, { headers }) : json(sorted, 200, headers);
    }
  }

  async #of(call: Call, known: Known, node: FleetNode, wanted: Wanted): Promise<Part | { refused: Response }> {
    const { forwarder, probes, assertions, log } = this.#parts;
    const nothing = { running: 0, headers: new Headers(), more: false };
    if (await probes.answers(node)) {
      try {
        const signal = AbortSignal.timeout(ANSWER_MS);
        const part = await collect(wanted, async ({ pathname, search }) => {
          const path = `${pathname}${search}`;
          const claim = { ...claimOf(call.incoming, known), to: node.id, local: true };
          const question = { method: "GET", path, headers: passedTo(call) };
          const answer = await forwarder.ask(
            node,
            question,
            (headers) => assertions.sign(claim, { method: "GET", path, headers }),
            signal,
          );
          const headers = new Headers();
          for (let i = 0; i + 1 < answer.headers.length; i += 2) {
            headers.append(answer.headers[i] ?? "", answer.headers[i + 1] ?? "");
          }
          return { status: answer.status, headers, text: answer.body.toString("utf8") };
        });
        // Who asks too often is told so, and not that something is out of reach.
        if (!("refused" in part) || part.refused.status === 429) return part;
        log.warn({ phase: "fleet", node: node.name, status: part.refused.status }, "a node did not say what it has");
      } catch (err) {
        log.warn({ phase: "fleet", node: node.name, err }, "a node did not say what it has");
      }
    }
    // E2B's clients know running and paused ones, and take what they are told for something that they can use.
    if (wanted.e2b || wanted.of !== "sandboxes") return { ...nothing, rows: [] };
    return { ...nothing, rows: await this.#written(call, known, node) };
  }

  /** As they were when they were last heard of. */
  async #written({ incoming }: Call, known: Known, node: FleetNode): Promise<Row[]> {
    if (!("caller" in known)) return [];
    const { directory, config } = this.#parts;
    const acts = (incoming.headers["x-owner"] ?? incoming.headers["x-tenant-id"] ?? "") !== "";
    const everybody = known.caller.scopes.has("admin") && !acts;
    const filter = { nodeId: node.id, ...(everybody ? {} : { owner: ownerNamed(incoming, known.caller) }) };
    return (await directory.all(filter)).map((one) => rowOf(one, node, config.server.preview_domain));
  }
}

/** Who the list is for, besides the caller. */
function passedTo({ incoming }: Call): string[] {
  return ["x-owner", "x-tenant-id", "x-user-id"].flatMap((name) => {
    const value = incoming.headers[name];
    return typeof value === "string" ? [name, value] : [];
  });
}

interface Page {
  status: number;
  headers: Headers;
  text: string;
}

/** Page by page until it is enough. */
async function collect(
  { of, url, enough }: Wanted,
  read: (url: URL) => Promise<Page>,
): Promise<Part | { refused: Response }> {
  const rows: Row[] = [];
  let first: Headers | undefined;
  for (const asked = new URL(url); ; ) {
    const { status, headers, text } = await read(asked);
    if (status !== 200) {
      headers.delete("content-length");
      return { refused: new Response(text, { status, headers }) };
    }
    const said: unknown = JSON.parse(text);
    if (of === "stats") rows.push(...Object.entries(said as object).map(([id, stats]) => ({ id, stats })));
    else rows.push(...(said as Row[]));
    first ??= headers;
    const next = headers.get("x-next-token");
    const running = Number(first.get("x-total-running") ?? 0);
    if (next === null) return { rows, running, headers: first, more: false };
    if (enough?.(rows) === true) return { rows, running, headers: first, more: true };
    asked.searchParams.set("nextToken", next);
  }
}

/** One that is being moved may be with two for a moment. */
function unique(rows: Row[]): Row[] {
  return [...new Map(rows.map((row) => [String(row.id ?? row.sandboxID), row])).values()];
}

function byCreation(a: Row, b: Row): number {
  return Date.parse(String(b.created_at)) - Date.parse(String(a.created_at));
}

/** Of an E2B list. */
function placed(row: Row): { id: string; at: number } {
  return { id: String(row.sandboxID), at: Date.parse(String(row.startedAt)) };
}

function byStart(a: Row, b: Row): number {
  return Date.parse(String(b.startedAt)) - Date.parse(String(a.startedAt));
}

function rowOf(one: Ownership, { name, seenAt, state }: FleetNode, previewDomain: string): Row {
  const known = SandboxBody.shape.state.safeParse(one.state);
  const row: Partial<z.output<typeof SandboxBody>> = {
    id: one.sandboxId,
    ...(one.name === undefined ? {} : { name: one.name }),
    state: known.success ? known.data : "running",
    provider: "",
    image: one.image,
    memory_mb: one.memoryMiB,
    vcpus: one.vcpus,
    disk_mb: one.diskMiB,
    owner: one.owner,
    created_at: new Date(one.createdAt).toISOString(),
    expires_at: new Date(one.expiresAt).toISOString(),
    metadata: {},
    preview_domain: previewDomain,
    worker_id: name,
    unreachable: {
      since: new Date(seenAt).toISOString(),
      reason: `its node ${name} is ${state === "up" ? "not answering" : state}`,
    },
  };
  return row;
}
