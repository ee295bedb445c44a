/**
 * The published server spreads work over workers, which announce themselves with tokens. Here one machine does all of it: it is
 * the worker `local`, and no other can join.
 */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { SandboxId } from "../schemas/common.ts";
import { LOCAL_WORKER } from "../schemas/sandbox.ts";
import { localWorker, WorkerBody } from "../schemas/worker.ts";

const tag = "workers";
const nobodyJoins = (): never => {
  throw new StacyError("unavailable", "this server is one machine; no worker can join it", {
    remedy: "run a server of its own on the other machine (docs/differences.md)",
  });
};

export function workerRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const known = (id: string): void => {
    if (id !== LOCAL_WORKER) throw new StacyError("not-found", `there is no worker ${JSON.stringify(id.slice(0, 64))}`);
  };
  endpoints.add(
    {
      method: "get",
      path: "/workers",
      scope: "read",
      admin: true,
      tag,
      summary: "Workers: this machine",
      responses: { 200: { description: "One", schema: z.array(WorkerBody) } },
    },
    () => json([localWorker(parts)]),
  );
  endpoints.add(
    {
      method: "get",
      path: "/workers/{id}",
      scope: "read",
      admin: true,
      tag,
      summary: "One worker",
      params: SandboxId,
      responses: { 200: { description: "The worker", schema: WorkerBody } },
      errors: [404],
    },
    ({ params }) => {
      known(params.id);
      return json(localWorker(parts));
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/workers/{id}",
      scope: "admin",
      admin: true,
      tag,
      summary: "Forget a worker",
      description: "404 for any but `local`, and 409 for that: it is the one that answers.",
      params: SandboxId,
      responses: {},
      errors: [404, 409],
    },
    ({ params }) => {
      known(params.id);
      throw new StacyError(
        "conflict",
        `the worker ${LOCAL_WORKER} is this machine, and is there as long as it answers`,
      );
    },
  );
  for (const path of [
    "/worker/{id}/heartbeat",
    "/worker/{id}/leases/{resource}/renew",
    "/workers/{id}/heartbeat",
    "/admin/workers/{id}/heartbeat",
    "/admin/workers/{id}/leases/{resource}/renew",
    "/admin/worker-tokens",
  ]) {
    endpoints.add(
      {
        method: "post",
        path,
        scope: "admin",
        tag,
        summary: "For workers that join",
        description: "None can: 503, as the published server answers without a worker token.",
        ...(path.includes("{resource}")
          ? { params: SandboxId.extend({ resource: z.string() }) }
          : path.includes("{id}")
            ? { params: SandboxId }
            : {}),
        responses: {},
      },
      nobodyJoins,
    );
  }
}
