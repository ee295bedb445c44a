import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import type { CheckpointRecord } from "../../sandboxes/record.ts";
import type { View } from "../../sandboxes/view.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json, jsonText } from "../endpoint.ts";
import { SandboxList } from "../sandbox-list.ts";
import { SandboxSampler } from "../sandbox-stats.ts";
import { Duration, SandboxId, StatusBody, whole } from "../schemas/common.ts";
import { directoryCaller } from "../schemas/directory.ts";
import {
  AdmissionBody,
  admissionBody,
  CheckpointBody,
  CheckpointRequest,
  checkpointBody,
  ForkBody,
  ForkRequest,
  NetworkBody,
  NetworkRequest,
  networkBody,
  SandboxBody,
  SpawnRequest,
  StatsBody,
  sandboxBody,
  spawnInput,
  statsBody,
} from "../schemas/sandbox.ts";
import { defined } from "../schemas/values.ts";
import { AttachedVolumeParam, VolumeDetachQuery, VolumeMountRequest } from "../schemas/volume.ts";

const tag = "sandboxes";

export function sandboxRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { config } = parts;
  const body = (record: Parameters<typeof sandboxBody>[0]) => sandboxBody(record, config.server.preview_domain);
  const list = new SandboxList(body);
  const one = { 200: { description: "The sandbox", schema: SandboxBody } };

  endpoints.add(
    {
      method: "post",
      path: "/sandboxes",
      scope: "use",
      tag,
      summary: "Spawn a sandbox",
      body: SpawnRequest,
      responses: { 201: { description: "It runs", schema: SandboxBody } },
      errors: [404, 409, 501, 507],
    },
    async ({ c, sandboxes, body: request, user, signal }) => {
      const directoriesFor = directoryCaller(c.get("identity"));
      const sandbox = await sandboxes.spawn({ ...spawnInput(request, user), directoriesFor }, signal);
      c.set("timing", sandbox.record.boot?.phases ?? {});
      return json(body(sandbox.record), 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes",
      scope: "read",
      tag,
      summary: "List sandboxes, newest first",
      responses: { 200: { description: "All that were not destroyed", schema: z.array(SandboxBody) } },
    },
    ({ sandboxes }) => jsonText(list.text(sandboxes.list())),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/sandboxes",
      scope: "use",
      tag,
      summary: "Destroy what has expired",
      responses: { 200: { description: "How many", schema: z.object({ pruned: z.int() }) } },
    },
    async ({ sandboxes }) => json({ pruned: await sandboxes.prune() }),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/admission",
      scope: "read",
      tag,
      summary: "What a spawn would meet now",
      body: SpawnRequest,
      bodyOptional: true,
      responses: { 200: { description: "The decision", schema: AdmissionBody } },
      errors: [404],
    },
    async ({ sandboxes, body: request, user }) =>
      json(admissionBody(await sandboxes.admission(spawnInput(request, user)))),
  );
  const sampler = new SandboxSampler();
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/stats",
      scope: "read",
      tag,
      summary: "What each of them uses",
      responses: {
        200: { description: "By id; one without a machine is not there", schema: z.record(z.string(), StatsBody) },
      },
    },
    async ({ sandboxes }) => {
      const all = await sampler.read(sandboxes.everyOne());
      return json(Object.fromEntries([...all].map(([id, stats]) => [id, statsBody(stats)])));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}",
      scope: "read",
      tag,
      summary: "One sandbox",
      params: SandboxId,
      responses: one,
      errors: [404],
    },
    ({ sandboxes, params }) => json(body(sandboxes.get(params.id).record)),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/sandboxes/{id}",
      scope: "use",
      tag,
      summary: "Destroy a sandbox",
      description:
        "Answered when its machine cannot run any more and its id is unknown; what is left of it is removed beside. Idempotent, also for an unknown id.",
      params: SandboxId,
      responses: { 200: { description: "It has ended", schema: StatusBody } },
    },
    async ({ sandboxes, params }) => {
      await sandboxes.destroy(params.id);
      return json({ status: "destroyed" });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/extend",
      scope: "use",
      tag,
      summary: "New expiry: now and the given ttl",
      params: SandboxId,
      body: z.object({ ttl: Duration }).openapi("ExtendRequest"),
      responses: one,
      errors: [404],
    },
    async ({ sandboxes, params, body: { ttl } }) => {
      if (ttl === undefined) throw new StacyError("invalid", "ttl is required");
      return json(body(await sandboxes.extend(params.id, ttl)));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/network",
      scope: "read",
      tag,
      summary: "Hosts that it may connect to, and how that went so far",
      params: SandboxId,
      responses: { 200: { description: "Counts since the server has it", schema: NetworkBody } },
      errors: [404, 409],
    },
    ({ sandboxes, params }) => {
      const sandbox = sandboxes.get(params.id);
      return json(networkBody(sandbox.machineIn(["running", "paused", "suspended"]).network));
    },
  );
  endpoints.add(
    {
      method: "put",
      path: "/sandboxes/{id}/network",
      scope: "use",
      tag,
      summary: "Set the hosts that it may connect to",
      description: "From now on, also for connections that are open. An empty list: none.",
      params: SandboxId,
      body: NetworkRequest,
      responses: one,
      errors: [404, 409],
    },
    async ({ sandboxes, params, body: request }) =>
      json(body(await sandboxes.setNetwork(params.id, request.allowed_hosts))),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/volumes",
      scope: "use",
      tag,
      summary: "Attach a volume to it while it runs",
      description: "In a free place of its machine (`volume_slots` of its start).",
      params: SandboxId,
      body: VolumeMountRequest,
      responses: one,
      errors: [404, 409],
    },
    async ({ sandboxes, params, body: { name, path, read_only } }) =>
      json(body(await sandboxes.attachVolume(params.id, { name, path, readOnly: read_only === true }))),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/sandboxes/{id}/volumes/{name}",
      scope: "use",
      tag,
      summary: "Detach a volume from it while it runs",
      description:
        "While no program has a file of it open or works in it: else 409 names them. With `force` they lose it, and its place cannot be used again.",
      params: AttachedVolumeParam,
      query: VolumeDetachQuery,
      responses: one,
      errors: [404, 409],
    },
    async ({ sandboxes, params, query }) =>
      json(body(await sandboxes.detachVolume(params.id, params.name, query.force))),
  );
  for (const action of ["pause", "resume", "suspend"] as const) {
    endpoints.add(
      {
        method: "post",
        path: `/sandboxes/{id}/${action}`,
        scope: "use",
        tag,
        summary: {
          pause: "Stop its processors; memory stays",
          resume: "Let it run again, from a pause or from disk",
          suspend: "Save it to disk and free its memory",
        }[action],
        params: SandboxId,
        responses: one,
        errors: [404, 409, 501, 507],
      },
      async ({ sandboxes, params }) => json(body(await sandboxes[action](params.id))),
    );
  }
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/fork",
      scope: "use",
      tag,
      summary: "Copies of the running sandbox",
      params: SandboxId,
      body: ForkRequest,
      bodyOptional: true,
      responses: { 201: { description: "They run", schema: ForkBody } },
      errors: [404, 409, 501, 507],
    },
    async ({ sandboxes, params, body: request, signal }) => {
      const { count = 1, name, ttl, metadata, env, volumes, mounts: directories } = request;
      const options = { count, ...defined({ name, ttlMs: ttl, metadata, env, volumes, directories }) };
      const { sandboxes: children, stoppedMs } = await sandboxes.fork(params.id, options, signal);
      return json({ sandboxes: children.map(body), stopped_ms: stoppedMs }, 201);
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/checkpoints",
      scope: "use",
      tag: "checkpoints",
      summary: "Save the sandbox as it is; it goes on",
      params: SandboxId,
      body: CheckpointRequest,
      bodyOptional: true,
      responses: { 201: { description: "The checkpoint", schema: CheckpointBody } },
      errors: [404, 409, 501, 507],
    },
    async ({ sandboxes, params, body: input }) =>
      json(checkpointBody(await sandboxes.checkpoint(params.id, input)), 201),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/checkpoints",
      scope: "read",
      tag: "checkpoints",
      summary: "Checkpoints of a sandbox, also of one that is gone",
      params: SandboxId,
      responses: { 200: { description: "Newest first", schema: z.array(CheckpointBody) } },
    },
    async ({ sandboxes, params }) => json(await looked(sandboxes, sandboxes.checkpoints.list(params.id))),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/restore",
      scope: "use",
      tag: "checkpoints",
      summary: "Go back to a checkpoint of this sandbox, in place",
      description: "Same sandbox, same names; it runs afterwards. What came after the checkpoint is gone.",
      params: SandboxId,
      body: z.object({ checkpoint: z.string().min(1).max(64) }).openapi("RestoreRequest"),
      responses: { 200: { description: "The sandbox", schema: SandboxBody } },
      errors: [404, 409, 507],
    },
    async ({ sandboxes, params, body: request }) => json(body(await sandboxes.restore(params.id, request.checkpoint))),
  );
  endpoints.add(
    {
      method: "get",
      path: "/checkpoints",
      scope: "read",
      tag: "checkpoints",
      summary: "All checkpoints",
      responses: { 200: { description: "Newest first", schema: z.array(CheckpointBody) } },
    },
    async ({ sandboxes }) => json(await looked(sandboxes, sandboxes.checkpoints.list())),
  );
  endpoints.add(
    {
      method: "get",
      path: "/checkpoints/{id}",
      scope: "read",
      tag: "checkpoints",
      summary: "One checkpoint",
      params: SandboxId,
      responses: { 200: { description: "The checkpoint", schema: CheckpointBody } },
      errors: [404],
    },
    async ({ sandboxes, params }) => json((await looked(sandboxes, [sandboxes.checkpoints.get(params.id)]))[0]),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/checkpoints/{id}",
      scope: "use",
      tag: "checkpoints",
      summary: "Delete a checkpoint",
      params: SandboxId,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.checkpoints.remove(params.id);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/logs",
      scope: "read",
      tag,
      summary: "The last lines of its console",
      params: SandboxId,
      query: z.object({ lines: whole(1, 10_000).default(100) }),
      responses: { 200: { description: "Lines, oldest first", schema: z.array(z.string()) } },
      errors: [404],
    },
    async ({ sandboxes, params, query }) => {
      const sandbox = sandboxes.get(params.id);
      const kept = sandbox.record.failure?.console;
      return json(
        kept?.slice(-query.lines) ?? (await (sandbox.machine ?? sandbox.unreachable)?.console(query.lines)) ?? [],
      );
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/stats",
      scope: "read",
      tag,
      summary: "What it uses",
      params: SandboxId,
      responses: {
        200: {
          description: "Processor in percent of one core, memory and disk in bytes",
          schema: StatsBody,
        },
      },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      const sandbox = sandboxes.get(params.id);
      if (sandbox.machine === undefined || sandbox.state === "error") return json({ supported: false });
      return json(statsBody(await sandbox.machine.stats()));
    },
  );
}

/** Checkpoints as they are on the disk now, one after another: files that were touched are read. */
async function looked(sandboxes: View, records: readonly CheckpointRecord[]) {
  const bodies: ReturnType<typeof checkpointBody>[] = [];
  for (const record of records) {
    bodies.push(checkpointBody({ ...record, damaged: await sandboxes.checkpoints.damageOf(record) }));
  }
  return bodies;
}
