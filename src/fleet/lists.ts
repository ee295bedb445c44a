/** What sandboxes there are, in the whole fleet: each node says what it has, and for those that do not answer the table does. */
import type { Logger } from "pino";
import type { z } from "zod";
import type { Api } from "../api/endpoint.ts";
import { json } from "../api/endpoint.ts";
import { SandboxBody } from "../api/schemas/sandbox.ts";
import { vouch } from "../api/vouched.ts";
import { pageOf } from "../e2b/control/paging.ts";
import { type CallersParts, callerIn, claimOf, headersOf, type Known, ownerNamed } from "./callers.ts";
import type { Directory, FleetNode, Ownership } from "./contract.ts";
import type { Call, Forwarder } from "./forwarding/forwarder.ts";
import type { Probes } from "./forwarding/probes.ts";
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
}

export class Lists {
  readonly #parts: ListsParts;

  constructor(parts: ListsParts) {
    this.#parts = parts;
  }

  /** @returns whether it was answered; else the application has it */
  async list(call: Call, e2b: boolean): Promise<boolean> {
    const { incoming } = call;
    const { directory, app } = this.#parts;
    const known = await callerIn(incoming, this.#parts);
    if (known === undefined) return false;
    vouch(incoming, { caller: known.caller });
    // Of each node all, in pages of its own; the pages of the client are made of them together.
    const asked = new URL(incoming.url ?? "/", `http://${incoming.headers.host ?? "localhost"}`);
    const [limit, token] = [asked.searchParams.get("limit"), asked.searchParams.get("nextToken")];
    asked.searchParams.delete("limit");
    asked.searchParams.delete("nextToken");
    const own = await collect(async (next) => {
      const url = paged(asked, next);
      const response = await app.fetch(new Request(url, { headers: headersOf(incoming) }), { incoming } as never);
      return { status: response.status, headers: response.headers, text: await response.text() };
    });
    // What is wrong with the request each node would say, too.
    if ("refused" in own) {
      await sayResponse(call, own.refused);
      return true;
    }
    const others = directory.nodes().filter(({ id, role }) => id !== directory.self.id && role === "node");
    const parts = await Promise.all(others.map((node) => this.#of(call, known, node, asked, e2b)));
    const all = [own, ...parts];
    const rows = unique(all.flatMap((part) => part.rows)).toSorted(e2b ? byStart : byCreation);
    const said = Object.fromEntries([...own.headers].filter(([name]) => !OF_ONE.has(name)));
    if (!e2b) {
      await sayResponse(call, json(rows, 200, said));
      return true;
    }
    if (asked.searchParams.get("order") === "asc") rows.reverse();
    if (asked.pathname === "/sandboxes") {
      await sayResponse(call, Response.json(rows, { headers: said }));
      return true;
    }
    const items = rows.map((row) => ({ id: String(row.sandboxID), at: Date.parse(String(row.startedAt)), row }));
    const { page, next } = pageOf(items, limit ?? undefined, token ?? undefined, ({ at }) => at);
    const headers = {
      ...said,
      "x-total-running": String(all.reduce((sum, { running }) => sum + running, 0)),
      ...(next === undefined ? {} : { "x-next-token": next }),
    };
    await sayResponse(
      call,
      Response.json(
        page.map(({ row }) => row),
        { headers },
      ),
    );
    return true;
  }

  async #of(call: Call, known: Known, node: FleetNode, url: URL, e2b: boolean): Promise<Part> {
    const { forwarder, probes, assertions, log } = this.#parts;
    if (await probes.answers(node)) {
      try {
        const signal = AbortSignal.timeout(ANSWER_MS);
        const part = await collect(async (next) => {
          const { pathname, search } = paged(url, next);
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
        if ("rows" in part) return part;
        log.warn({ phase: "fleet", node: node.name, status: part.refused.status }, "a node did not say what it has");
      } catch (err) {
        log.warn({ phase: "fleet", node: node.name, err }, "a node did not say what it has");
      }
    }
    // E2B's clients know running and paused ones, and take what they are told for something that they can use.
    if (e2b) return { rows: [], running: 0, headers: new Headers() };
    return { rows: await this.#written(call, known, node), running: 0, headers: new Headers() };
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

function paged(url: URL, next: string | undefined): URL {
  const one = new URL(url);
  if (next !== undefined) one.searchParams.set("nextToken", next);
  return one;
}

interface Page {
  status: number;
  headers: Headers;
  text: string;
}

async function collect(read: (next: string | undefined) => Promise<Page>): Promise<Part | { refused: Response }> {
  const rows: Row[] = [];
  let first: Headers | undefined;
  let next: string | undefined;
  for (;;) {
    const { status, headers, text } = await read(next);
    if (status !== 200) {
      headers.delete("content-length");
      return { refused: new Response(text, { status, headers }) };
    }
    rows.push(...(JSON.parse(text) as Row[]));
    first ??= headers;
    next = headers.get("x-next-token") ?? undefined;
    if (next === undefined) return { rows, running: Number(headers.get("x-total-running") ?? 0), headers: first };
  }
}

/** One that is being moved may be with two for a moment. */
function unique(rows: Row[]): Row[] {
  return [...new Map(rows.map((row) => [String(row.id ?? row.sandboxID), row])).values()];
}

function byCreation(a: Row, b: Row): number {
  return Date.parse(String(b.created_at)) - Date.parse(String(a.created_at));
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
