/**
 * The published server's environments: lists of packages that Docker builds into images and pushes to registries. Images are built
 * otherwise here (routes/image-build.ts), so there are none: lists are empty, single ones are not found, and making one says where to go.
 */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { SandboxId, whole } from "../schemas/common.ts";

const tag = "environments";
const Nothing = z.array(z.record(z.string(), z.unknown()));
const OwnerQuery = z.object({ owner_id: z.string().min(1, "is required").max(128), limit: whole(1, 200).optional() });

export function environmentRoutes(endpoints: Endpoints): void {
  for (const [path, what] of [
    ["/environments/specs", "lists of packages"],
    ["/environments/builds", "their builds"],
    ["/environments/registry-connections", "registries to push to"],
  ] as const) {
    endpoints.add(
      {
        method: "get",
        path,
        scope: "read",
        tag,
        summary: `Environments: ${what}`,
        query: OwnerQuery,
        responses: { 200: { description: "None: images are built otherwise here", schema: Nothing } },
      },
      () => json([]),
    );
    endpoints.add(
      {
        method: "post",
        path,
        scope: "use",
        tag,
        summary: "Environments are not made here",
        description: "501: see `POST /images/build`.",
        responses: {},
        errors: [501],
      },
      () => {
        throw new StacyError("not-supported", "this server has no environments", {
          remedy: "build an image: `stacyvm image build`, or POST /api/v1/images/build (docs/images.md)",
        });
      },
    );
  }
  for (const [method, path] of [
    ["get", "/environments/specs/{id}"],
    ["get", "/environments/specs/{id}/suggestions"],
    ["get", "/environments/builds/{id}"],
    ["get", "/environments/builds/{id}/spawn-config"],
    ["post", "/environments/builds/{id}/cancel"],
    ["delete", "/environments/registry-connections/{id}"],
  ] as const) {
    endpoints.add(
      {
        method,
        path,
        scope: method === "get" ? "read" : "use",
        tag,
        summary: "Of an environment: there is none",
        params: SandboxId,
        responses: {},
        errors: [404],
      },
      ({ params }) => {
        throw new StacyError("not-found", `there is no environment ${JSON.stringify(params.id.slice(0, 64))}`);
      },
    );
  }
}
