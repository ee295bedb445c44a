/** The servers of the fleet, for administrators. A server that is alone has none. */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import type { FleetNodes, FleetNodeView } from "../fleet-nodes.ts";
import { Flag, SandboxId } from "../schemas/common.ts";
import { iso } from "../schemas/values.ts";

const NodeBody = z
  .object({
    id: z.string(),
    name: z.string(),
    url: z.string().openapi({ description: "How the others reach it" }),
    role: z.string(),
    state: z.enum(["up", "silent", "lost"]).openapi({
      description: "`silent`: it missed three heartbeats; `lost`: it was silent for `fleet.lost_after`",
    }),
    draining: z.boolean().openapi({ description: "It takes no new sandboxes" }),
    self: z.boolean().openapi({ description: "It is the one that answers" }),
    version: z.string(),
    labels: z.record(z.string(), z.string()),
    architecture: z.string(),
    host_identity: z.string().openapi({ description: "Saved machines wake on nodes where this is the same" }),
    providers: z.array(z.string()),
    seen_at: z.string(),
    load: z.object({
      sandboxes: z.int(),
      max_sandboxes: z.int().openapi({ description: "0: no limit" }),
      queued: z.int(),
      vcpus: z.int(),
      memory_mb: z.int(),
      free_memory_mb: z.int(),
      load_average: z.number(),
      clock_offset_ms: z.number().optional().openapi({
        description: "So much its clock is ahead of the fleet's database's; to a tenth of a second",
      }),
    }),
  })
  .openapi("FleetNode");

const RemovedBody = z
  .object({ forgotten: z.array(z.string()).openapi({ description: "Ids of the sandboxes that it had" }) })
  .openapi("RemovedNode");

const DrainRequest = z
  .object({ move: z.boolean().optional().openapi({ description: "It gives away what it has, too, beside this" }) })
  .openapi("DrainRequest");

const DrainBody = z
  .object({
    draining: z.boolean().openapi({ description: "It takes no new sandboxes" }),
    moving: z.boolean().openapi({ description: "It is giving away what it has" }),
    moved: z.int().openapi({ description: "Sandboxes, since it began" }),
    left: z.array(z.object({ id: z.string(), reason: z.string() })).openapi({ description: "What it has, with why" }),
  })
  .openapi("NodeDrain");

const SandboxMoveRequest = z
  .object({
    to: z
      .string()
      .min(1)
      .max(128)
      .optional()
      .openapi({ description: "Name or id of the node; default: where it fits best" }),
  })
  .openapi("SandboxMoveRequest");

const MovedBody = z
  .object({
    id: z.string(),
    node: z.string().openapi({ description: "Name of the node that has it" }),
    former_node: z.string().openapi({ description: "Name of the node that had it" }),
    state: z.string(),
    stopped_ms: z.number().openapi({ description: "So long its programs stood still; 0: it was there already" }),
    total_ms: z.number(),
    bytes: z.int().openapi({ description: "Sent over the network" }),
    known_bytes: z.int().openapi({ description: "That the other node had already" }),
  })
  .openapi("MovedSandbox");

const NodeParam = z.object({ node: z.string().min(1).max(128) });
const tag = "nodes";

export function nodeRoutes(endpoints: Endpoints, { fleet }: RouteParts): void {
  const body = ({ load, seenAt, hostIdentity, ...node }: FleetNodeView, self: string): z.output<typeof NodeBody> => ({
    ...node,
    labels: { ...node.labels },
    providers: [...node.providers],
    self: node.id === self,
    host_identity: hostIdentity,
    seen_at: iso(seenAt),
    load: {
      ...{ sandboxes: load.sandboxes, max_sandboxes: load.maxSandboxes, queued: load.queued, vcpus: load.vcpus },
      ...{ memory_mb: load.memoryMiB, free_memory_mb: load.freeMemoryMiB, load_average: load.loadAverage },
      ...(load.clockOffsetMs === undefined ? {} : { clock_offset_ms: load.clockOffsetMs }),
    },
  });
  /** By id or name. @throws StacyError `not-found` */
  const find = async (idOrName: string): Promise<{ node: FleetNodeView; nodes: FleetNodes }> => {
    const all = (await fleet?.list()) ?? [];
    const node = all.find(({ id }) => id === idOrName) ?? all.find(({ name }) => name === idOrName);
    if (fleet !== undefined && node !== undefined) return { node, nodes: fleet };
    throw new StacyError("not-found", `there is no node ${JSON.stringify(idOrName)}`, {
      remedy:
        fleet === undefined
          ? "this server is alone; `fleet.database_url` makes it one of several"
          : "`stacyvm node ls` shows them",
    });
  };
  endpoints.add(
    {
      method: "get",
      path: "/nodes",
      scope: "admin",
      tag,
      summary: "Servers of the fleet",
      description: "None where this server is alone. While the fleet's database is away: as they were last seen.",
      responses: { 200: { description: "By name", schema: z.array(NodeBody) } },
    },
    async () => json(((await fleet?.list()) ?? []).map((node) => body(node, fleet?.self ?? ""))),
  );
  endpoints.add(
    {
      method: "get",
      path: "/nodes/{node}",
      scope: "admin",
      tag,
      summary: "One server of the fleet, by id or name",
      params: NodeParam,
      responses: { 200: { description: "The node", schema: NodeBody } },
      errors: [404],
    },
    async ({ params }) => {
      const { node, nodes } = await find(params.node);
      return json(body(node, nodes.self));
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/nodes/{node}/drain",
      scope: "admin",
      tag,
      summary: "Give a node no new sandboxes; those that it has go on, there or (`move`) elsewhere",
      params: NodeParam,
      body: DrainRequest,
      bodyOptional: true,
      responses: { 200: { description: "The node as it is now", schema: NodeBody } },
      errors: [404],
    },
    async ({ params, body: { move } }) => {
      const { node, nodes } = await find(params.node);
      await nodes.drain(node.id, true, move === true);
      return json(body({ ...node, draining: true }, nodes.self));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/nodes/{node}/drain",
      scope: "admin",
      tag,
      summary: "How far a node is that is being drained",
      params: NodeParam,
      responses: { 200: { description: "What it has given away, and what it has", schema: DrainBody } },
      errors: [404],
    },
    async ({ params }) => {
      const { node, nodes } = await find(params.node);
      return json({ draining: node.draining, ...(await nodes.drained(node.id)) });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/nodes/{node}/undrain",
      scope: "admin",
      tag,
      summary: "Give a node new sandboxes again",
      params: NodeParam,
      responses: { 200: { description: "The node as it is now", schema: NodeBody } },
      errors: [404],
    },
    async ({ params }) => {
      const { node, nodes } = await find(params.node);
      await nodes.drain(node.id, false);
      return json(body({ ...node, draining: false }, nodes.self));
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/nodes/{node}",
      scope: "admin",
      tag,
      summary: "Take a node out of the fleet: its rights end",
      description:
        "One that is up or has sandboxes: with `force` only. The fleet forgets what it had; machines that run there go on, and nothing that it writes counts any more.",
      params: NodeParam,
      query: z.object({ force: Flag }),
      responses: { 200: { description: "What was forgotten", schema: RemovedBody } },
      errors: [404, 409],
    },
    async ({ params, query }) => {
      const { node, nodes } = await find(params.node);
      return json({ forgotten: await nodes.remove(node.id, query.force) });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/move",
      scope: "admin",
      tag: "sandboxes",
      summary: "Have a sandbox go on at another node of the fleet",
      description:
        "It is suspended here and woken there: id, names, files, programs, limits and deadline stay; connections to it end, and calls that come meanwhile wait. 409 says what keeps it here, or what differs there.",
      params: SandboxId,
      body: SandboxMoveRequest,
      bodyOptional: true,
      responses: { 200: { description: "It is there", schema: MovedBody } },
      errors: [404, 409, 501, 507],
    },
    async ({ sandboxes, params, body: { to } }) => {
      const { id } = sandboxes.get(params.id);
      if (fleet === undefined) {
        throw new StacyError("not-supported", "this server is alone: there is no other node", {
          remedy: "`fleet.database_url` makes it one of several",
        });
      }
      const { formerNode, stoppedMs, totalMs, bytes, known, ...moved } = await fleet.move(id, to);
      return json({
        ...moved,
        former_node: formerNode,
        stopped_ms: stoppedMs,
        total_ms: totalMs,
        bytes,
        known_bytes: known,
      });
    },
  );
}
