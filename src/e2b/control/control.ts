/**
 * E2B's control plane: sandboxes made, listed, paused and ended by its names, and what this server does not have refused by name.
 * It translates; `sandboxes` decides.
 */
import type { z } from "zod";
import { withoutPort } from "../../api/auth.ts";
import { readJson } from "../../api/body.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { StacyError } from "../../host/error.ts";
import { schemaWords } from "../../host/schema-words.ts";
import type { PortRules, SandboxRecord } from "../../sandboxes/record.ts";
import type { SpawnInput } from "../../sandboxes/resolve.ts";
import type { View } from "../../sandboxes/view.ts";
import { errorResponse, notThere } from "../error.ts";
import type { E2bParts } from "../parts.ts";
import { templateRoutes } from "../templates/routes.ts";
import type { NewSandbox, Opened } from "./bodies.ts";
import * as bodies from "./bodies.ts";
import type { ControlContext } from "./env.ts";
import { Idempotency } from "./idempotency.ts";
import { logEntry, wantedOf } from "./logs.ts";
import { isNow, sampleMetrics } from "./metrics.ts";
import { hostsOf, networkOf } from "./network.ts";
import { pageOf } from "./paging.ts";
import { ControlRoutes } from "./routes.ts";
import { sourceOf } from "./templates.ts";
import { volumeRoutes } from "./volumes.ts";

/** What a client that names no time gets, ms. */
const DEFAULT_TIMEOUT_MS = 15_000;
/** The same of the second version's routes, s: newer clients leave it to the server. */
const V2_TIMEOUT = 300;
/** How long a paused sandbox is kept, where no limit of the server is shorter. */
const PAUSED_MS = 30 * 24 * 3_600_000;

/** First parts of the paths that are E2B's control plane, below no base. */
const OURS =
  /^\/(?:v[0-9]+\/)?(?:sandboxes|templates|default-templates|snapshots|teams|volumes|volumecontent|secrets|access-tokens|api-keys|nodes|events)(?:\/|$)/;

export function isControlPath(path: string): boolean {
  return OURS.test(path);
}

export function controlPlane(parts: E2bParts): ControlRoutes {
  const { tokens, config } = parts;
  const { maxTtlMs = 0 } = parts.limits;
  const keptMs = maxTtlMs > 0 ? Math.min(maxTtlMs, PAUSED_MS) : PAUSED_MS;
  const routes = new ControlRoutes();

  const limits = { maxBytes: config.server.max_json_bytes, timeoutMs: config.server.body_timeout };
  const read = async <S extends z.ZodType>(c: ControlContext, schema: S): Promise<z.output<S>> => {
    using held = new HeldInput(c.var.sandboxes.owner);
    const parsed = schema.safeParse((await readJson(c.req.raw, limits, held)) ?? {}, { error: schemaWords });
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new StacyError("invalid", `${issue?.path.join(".") || "the body"}: ${issue?.message}`);
  };
  /** A sandbox that clients see: paused or running. */
  const find = (c: ControlContext, id = c.req.param("id") ?? ""): SandboxRecord => {
    const found = c.var.sandboxes.get(id).record;
    if (found.state === "error")
      throw new StacyError("not-found", `sandbox ${id} has failed: ${found.failure?.message}`);
    return found;
  };
  const created = (c: ControlContext, opened: Opened, status = 201): Response =>
    Response.json(openedTo(c, opened), { status });
  const openedTo = (c: ControlContext, opened: Opened): Record<string, unknown> => {
    const by = c.var.credential;
    if (by === undefined) return {};
    const own = { of: (id: string) => tokens.of(id, by), traffic: (id: string) => tokens.traffic(id, by) };
    return bodies.opened(opened, own, domainOf(c));
  };
  /** Of a request to `api.<domain>`, with the port that the client named. */
  const domainOf = (c: ControlContext): string | undefined => {
    const [, host = ""] = /^api\.(.+)$/i.exec(c.req.header("host") ?? "") ?? [];
    const wanted = withoutPort(config.server.preview_domain);
    return host !== "" && withoutPort(host) === wanted ? host : undefined;
  };
  const nothing = (): Response => new Response(null, { status: 204 });

  const creations = new Idempotency<Opened>();
  const create = async (c: ControlContext, byDefault?: number): Promise<Response> => {
    const { timeout = byDefault, ...rest } = await read(c, bodies.NewSandbox);
    const body: NewSandbox = { ...rest, timeout };
    refuse(body);
    const { sandboxes } = c.var;
    const key = c.req.header("idempotency-key");
    // Who asks again has gone away the first time: that is no reason to end what it asks for.
    const signal = key === undefined ? c.req.raw.signal : parts.stopping;
    const made = await creations.once(
      { owner: sandboxes.owner, key, request: body },
      async (request) => {
        const input = spawnInput(body, sandboxes, keptMs, parts.limits.defaultHosts);
        return bodies.openedOf((await sandboxes.spawn({ ...input, ...request }, signal)).record);
      },
      (earlier) => {
        const record = sandboxes.list().find(({ request, state }) => request?.key === earlier && state !== "error");
        return record?.request && { ...record.request, at: record.createdAt, result: bodies.openedOf(record) };
      },
    );
    return created(c, made);
  };
  routes.on("POST", "/sandboxes", "use", (c) => create(c));
  routes.on("POST", "/v2/sandboxes", "use", (c) => create(c, V2_TIMEOUT));

  const list = (c: ControlContext, states: readonly string[]): SandboxRecord[] => {
    // E2B's clients encode each name and value, the list of them, and the query.
    const wanted = [...new URLSearchParams(c.req.query("metadata") ?? "")].map((pair) => pair.map(unescaped));
    return (
      c.var.sandboxes
        .list()
        // What a call has borrowed goes with it, and is no client's to end: a build's machine.
        .filter(({ lent }) => lent !== true)
        .filter((record) => record.state !== "error" && record.state !== "creating")
        .filter((record) => states.includes(bodies.stateOf(record)))
        .filter((record) => wanted.every(([key = "", value]) => record.metadata[key] === value))
    );
  };
  routes.on("GET", "/sandboxes", "read", (c) => Response.json(list(c, ["running"]).map(bodies.listed)));
  routes.on("GET", "/v2/sandboxes", "read", (c) => {
    const states = c.req.queries("state")?.flatMap((state) => state.split(",")) ?? ["running", "paused"];
    for (const state of states)
      if (state !== "running" && state !== "paused") throw new StacyError("invalid", `state: ${state} is none`);
    let found = list(c, states);
    const template = c.req.query("template") ?? c.req.query("templateID");
    if (template !== undefined) found = found.filter((record) => bodies.templateOf(record) === template);
    const after = c.req.query("startedAfter");
    if (after !== undefined) {
      const from = Date.parse(after);
      if (Number.isNaN(from)) throw new StacyError("invalid", "startedAfter: is no time");
      found = found.filter(({ createdAt }) => createdAt >= from);
    }
    if (c.req.query("order") === "asc") found.reverse();
    const { page, next } = pageOf(found, c.req.query("limit"), c.req.query("nextToken"), madeAt);
    const headers = {
      "x-total-running": String(found.filter((record) => bodies.stateOf(record) === "running").length),
      ...(next === undefined ? {} : { "x-next-token": next }),
    };
    return Response.json(page.map(bodies.listed), { headers });
  });
  routes.on("GET", "/sandboxes/metrics", "read", async (c) => {
    const ids = (c.req.query("sandbox_ids") ?? "").split(",").filter((id) => id !== "");
    const known = list(c, ["running"]).filter(({ id }) => ids.includes(id));
    // One that ends, or does not answer, is left out: the others are asked for, too.
    const samples = await Promise.allSettled(
      known.map(async ({ id }) => [id, await sampleMetrics(c.var.sandboxes, id)] as const),
    );
    const sampled = samples.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    return Response.json({ sandboxes: Object.fromEntries(sampled) });
  });

  routes.on("GET", "/sandboxes/:id", "read", (c) => {
    const record = find(c);
    return Response.json({
      ...bodies.listed(record),
      // The tokens open files and processes: they are not for who may only read.
      ...openedTo(c, bodies.openedOf(record)),
      allowInternetAccess: (record.allowedHosts ?? []).length > 0,
      network: networkOf(record.allowedHosts ?? []),
      lifecycle: {
        onTimeout: record.onExpiry === undefined ? "kill" : "pause",
        autoResume: record.onExpiry?.resumeMs !== undefined,
      },
    });
  });
  routes.on("DELETE", "/sandboxes/:id", "use", async (c) => {
    const { id } = find(c);
    await c.var.sandboxes.destroy(id);
    return nothing();
  });

  const setTimeout = async (c: ControlContext, id: string, seconds: number): Promise<void> => {
    // At once: E2B ends a sandbox whose time is set to nothing, or pauses one that was made so.
    if (seconds === 0 && find(c, id).onExpiry !== undefined) await c.var.sandboxes.extend(id, 1);
    else if (seconds === 0) await c.var.sandboxes.destroy(id);
    else await c.var.sandboxes.extend(id, seconds * 1000);
  };
  routes.on("POST", "/sandboxes/:id/timeout", "use", async (c) => {
    const { id } = find(c);
    await setTimeout(c, id, (await read(c, bodies.Timeout)).timeout);
    return nothing();
  });
  routes.on("POST", "/sandboxes/:id/refreshes", "use", async (c) => {
    const { id, expiresAt } = find(c);
    const wanted = ((await read(c, bodies.Refresh)).duration ?? 60) * 1000;
    // A refresh never takes time away.
    if (Date.now() + wanted > expiresAt) await c.var.sandboxes.extend(id, wanted);
    return nothing();
  });

  routes.on("POST", "/sandboxes/:id/pause", "use", async (c) => {
    const { id } = find(c);
    const { memory } = await read(c, bodies.Pause);
    if (bodies.stateOf(find(c, id)) === "paused") throw new StacyError("conflict", `sandbox ${id} is paused already`);
    await c.var.sandboxes.suspend(id, { keepMs: keptMs, keeps: memory === false ? "disk" : "machine" });
    return nothing();
  });
  /** @param memory false: without what was saved of it. @returns whether it was paused */
  const wake = async (c: ControlContext, id: string, memory?: boolean): Promise<boolean> => {
    const paused = bodies.stateOf(find(c, id)) === "paused";
    if (paused) await c.var.sandboxes.resume(id, { anew: memory === false });
    return paused;
  };
  const connect = async (c: ControlContext, byDefault?: number): Promise<Response> => {
    const id = c.req.param("id") ?? "";
    const { timeout = byDefault, memory } = await read(c, bodies.Connect);
    const woken = await wake(c, id, memory);
    if (timeout !== undefined || woken) {
      const wanted = timeout === undefined ? DEFAULT_TIMEOUT_MS : timeout * 1000;
      // Of a running one a connection makes the time longer, never shorter.
      if (woken || Date.now() + wanted > find(c, id).expiresAt) await c.var.sandboxes.extend(id, wanted);
    }
    return created(c, bodies.openedOf(find(c, id)), woken ? 201 : 200);
  };
  routes.on("POST", "/sandboxes/:id/connect", "use", (c) => connect(c));
  routes.on("POST", "/v2/sandboxes/:id/connect", "use", (c) => connect(c, V2_TIMEOUT));
  routes.on("POST", "/sandboxes/:id/resume", "use", async (c) => {
    const { id } = find(c);
    const { timeout, autoPause, memory } = await read(c, bodies.Resume);
    if (autoPause === true && find(c, id).onExpiry === undefined)
      throw notThere("autoPause of a sandbox that was made without it");
    if (!(await wake(c, id, memory))) throw new StacyError("conflict", `sandbox ${id} is running already`);
    await c.var.sandboxes.extend(id, timeout === undefined ? DEFAULT_TIMEOUT_MS : timeout * 1000);
    return created(c, bodies.openedOf(find(c, id)));
  });

  routes.on("GET", "/sandboxes/:id/metrics", "read", async (c) => {
    const { id, state } = find(c);
    // There is the present alone, which lies in the interval or does not.
    const now = isNow(c.req.query("start"), c.req.query("end"));
    return Response.json(state === "running" && now ? [await sampleMetrics(c.var.sandboxes, id)] : []);
  });
  const logs = async (c: ControlContext): Promise<string[]> => {
    const { id } = find(c);
    const { machine } = c.var.sandboxes.get(id);
    const lines = machine === undefined || machine.process === undefined ? [] : await machine.console(1000);
    return wantedOf(lines, c.req.query());
  };
  routes.on("GET", "/sandboxes/:id/logs", "read", async (c) => {
    const lines = await logs(c);
    const { timestamp } = logEntry("");
    return Response.json({ logs: lines.map((line) => ({ timestamp, line })), logEntries: lines.map(logEntry) });
  });
  routes.on("GET", "/v2/sandboxes/:id/logs", "read", async (c) =>
    Response.json({ logs: (await logs(c)).map(logEntry) }),
  );

  routes.on("PUT", "/sandboxes/:id/network", "use", async (c) => {
    const { id } = find(c);
    const body = await read(c, bodies.Network);
    const { defaultHosts } = parts.limits;
    // Without a word: what a new one has.
    await c.var.sandboxes.setNetwork(id, hostsOf(body, defaultHosts) ?? defaultHosts);
    return nothing();
  });

  routes.on("POST", "/sandboxes/:id/fork", "use", async (c) => {
    const { id } = find(c);
    const { timeout, count = 1 } = await read(c, bodies.Fork);
    const ttlMs = timeout === undefined ? DEFAULT_TIMEOUT_MS : timeout * 1000;
    const forked = await c.var.sandboxes.fork(id, { count, ttlMs }, c.req.raw.signal);
    return Response.json(
      forked.sandboxes.map((record) => ({ sandbox: openedTo(c, bodies.openedOf(record)) })),
      { status: 201 },
    );
  });

  routes.on("POST", "/sandboxes/:id/snapshots", "use", async (c) => {
    const { id } = find(c);
    const { name } = await read(c, bodies.Snapshot);
    const checkpoint = await c.var.sandboxes.checkpoint(id, { name });
    return Response.json({ snapshotID: checkpoint.id, names: name === undefined ? [] : [name] }, { status: 201 });
  });
  routes.on("GET", "/snapshots", "read", (c) => {
    const wanted = c.req.query("name");
    const found = c.var.sandboxes.checkpoints
      .list(c.req.query("sandboxID"))
      .filter((checkpoint) => wanted === undefined || isNamed(checkpoint, wanted));
    const { page, next } = pageOf(found, c.req.query("limit"), c.req.query("nextToken"), madeAt);
    return Response.json(
      page.map(({ id, name }) => ({ snapshotID: id, names: name === undefined ? [] : [name] })),
      { headers: next === undefined ? {} : { "x-next-token": next } },
    );
  });
  templateRoutes(routes, parts, read);
  volumeRoutes(routes, { tokens, read, domainOf });

  const feature = (paths: string[], what: string): void => {
    for (const path of paths) {
      for (const each of [path, `${path}/*`]) routes.on("ALL", each, "read", () => errorResponse(notThere(what)));
    }
  };
  feature(["/secrets"], "secrets");
  // A caller has one team: the owner whose everything is.
  routes.on("GET", "/teams", "read", (c) => {
    const { owner } = c.var.sandboxes;
    return Response.json([{ teamID: owner, name: owner, apiKey: "", isDefault: true }]);
  });
  feature(["/teams"], "this part of teams");
  feature(["/access-tokens", "/api-keys"], "keys made over the network");
  feature(["/nodes", "/events"], "this part of the control plane");
  feature(["/templates", "/v2/templates", "/v3/templates"], "this part of templates");
  return routes;
}

/** @param wanted its id or name; a team's name may stand before, and the tag that each has after it */
/** Lists of sandboxes and of snapshots are in this order. */
const madeAt = ({ createdAt }: { createdAt: number }): number => createdAt;

/** As Go's `url.QueryUnescape`; what is none stays as it is. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

function isNamed({ id, name }: { id: string; name?: string }, wanted: string): boolean {
  const last = wanted.slice(wanted.lastIndexOf("/") + 1);
  return [id, `${id}:default`, name, `${name}:default`].some((each) => each === last || each === wanted);
}

/** What a sandbox cannot be made with here. */
function refuse(body: NewSandbox): void {
  const { httpsPorts = [] } = body.network ?? {};
  if (httpsPorts.length > 0) throw notThere("ports that speak HTTPS in the sandbox (httpsPorts)");
  if (body.mcp != null) throw notThere("the MCP gateway");
  if (body.iam != null) throw notThere("identity tokens");
}

/** @param byDefault what it may reach where nothing is said of that */
function spawnInput(body: NewSandbox, sandboxes: View, keepMs: number, byDefault: readonly string[]): SpawnInput {
  for (const key of Object.keys(body.metadata ?? {})) {
    if (key.startsWith("stacyvm.")) throw new StacyError("invalid", `metadata: ${key} is a name of the server's own`);
  }
  const ttlMs = body.timeout === undefined ? DEFAULT_TIMEOUT_MS : body.timeout * 1000;
  const hosts = hostsOf({ allow_internet_access: body.allow_internet_access, ...body.network }, byDefault);
  return {
    ...sourceOf(body.templateID, sandboxes),
    ttlMs,
    ...(body.autoPause === true
      ? {
          onExpiry: {
            keepMs,
            ...(body.autoResume?.enabled === true ? { resumeMs: ttlMs } : {}),
            ...(body.autoPauseMemory === false ? { keeps: "disk" } : {}),
          },
        }
      : {}),
    metadata: bodies.remembered(body),
    env: { E2B_SANDBOX: "true", E2B_TEMPLATE_ID: body.templateID, ...body.envVars },
    ...(hosts === undefined ? {} : { allowedHosts: hosts }),
    ...(body.volumeMounts === undefined ? {} : { volumes: body.volumeMounts }),
    ...portsOf(body),
  };
}

function portsOf({ network }: NewSandbox): Pick<SpawnInput, "ports"> {
  const host = network?.maskRequestHost;
  const rules: PortRules = {
    ...(network?.allowPublicTraffic === false ? { closed: true } : {}),
    ...(host === undefined ? {} : { host }),
  };
  return Object.keys(rules).length === 0 ? {} : { ports: rules };
}
