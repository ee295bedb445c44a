/**
 * The published server's environments: lists of packages, and their builds (environments/environments.ts). Images stay on this host:
 * nothing is pushed to a registry, so there are no connections to one.
 */
import { z } from "@hono/zod-openapi";
import { BUILD_DISK_MIB, type Build } from "../../environments/environments.ts";
import type { Spec } from "../../environments/spec.ts";
import { StacyError } from "../../host/error.ts";
import type { View } from "../../sandboxes/view.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { maybe, SandboxId, StatusBody, whole } from "../schemas/common.ts";
import { iso } from "../schemas/values.ts";

const tag = "environments";
const Text = z.string().trim().min(1, "is required").max(256);
const Packages = z.array(z.string().max(200)).max(200);

const SpecRequest = z
  .object({
    owner_id: Text.max(128),
    name: Text,
    base_image: Text,
    python_packages: maybe(Packages),
    apt_packages: maybe(Packages),
    python_version: maybe(z.string().trim().max(32)),
  })
  .openapi("EnvironmentRequest");
const SpecBody = z
  .object({
    id: z.string(),
    owner_id: z.string(),
    name: z.string(),
    base_image: z.string(),
    python_packages: z.array(z.string()),
    apt_packages: z.array(z.string()),
    python_version: z.string().optional(),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("Environment");
const ArtifactBody = z
  .object({
    target: z.string(),
    image_ref: z.string(),
    digest: z.string().optional(),
    status: z.string(),
    error: z.string().optional(),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("EnvironmentArtifact");
const BuildBody = z
  .object({
    id: z.string(),
    spec_id: z.string(),
    status: z.enum(["queued", "building", "ready", "failed", "canceled"]),
    current_step: z.string(),
    log: z.string(),
    image_size_bytes: z.int(),
    digest_local: z.string().optional(),
    error: z.string().optional(),
    created_at: z.string(),
    finished_at: z.string().optional(),
    updated_at: z.string(),
    artifacts: z.array(ArtifactBody),
  })
  .openapi("EnvironmentBuild");
const BuildRequest = z
  .object({
    spec_id: Text,
    targets: maybe(z.array(z.string().trim().toLowerCase()).max(8)),
  })
  .openapi("EnvironmentBuildRequest");
const OwnerQuery = z.object({ owner_id: Text.max(128) });

export function environmentRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { environments, config, providers, policies } = parts;
  /** One that the caller may see; whose it is, is for the audit log. @throws StacyError `not-found` */
  const specOf = (id: string, sandboxes: View): Spec => {
    const spec = environments.spec(id, sandboxes.only);
    sandboxes.about(spec.owner);
    return spec;
  };
  const buildOf = (id: string, sandboxes: View): Build => {
    const { build, spec } = environments.build(id, sandboxes.only);
    sandboxes.about(spec.owner);
    return build;
  };

  endpoints.add(
    {
      method: "post",
      path: "/environments/specs",
      scope: "use",
      tag,
      summary: "Name packages for a base image",
      body: SpecRequest,
      responses: { 201: { description: "The environment", schema: SpecBody } },
      errors: [409],
    },
    async ({ body, sandboxes }) => {
      const spec = await environments.create({
        owner: sandboxes.owner,
        user: body.owner_id,
        name: body.name,
        baseImage: body.base_image,
        pythonPackages: body.python_packages ?? [],
        aptPackages: body.apt_packages ?? [],
        ...(body.python_version ? { pythonVersion: body.python_version } : {}),
      });
      return json(specBody(spec), 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/specs",
      scope: "read",
      tag,
      summary: "A user's environments",
      query: OwnerQuery,
      responses: { 200: { description: "Newest first", schema: z.array(SpecBody) } },
    },
    ({ query, sandboxes }) => json(environments.specs(query.owner_id, sandboxes.only).map(specBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/specs/{id}",
      scope: "read",
      tag,
      summary: "One environment",
      params: SandboxId,
      responses: { 200: { description: "The environment", schema: SpecBody } },
      errors: [404],
    },
    ({ params, sandboxes }) => json(specBody(specOf(params.id, sandboxes))),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/environments/specs/{id}",
      scope: "use",
      tag,
      summary: "Forget an environment and its builds",
      description: "Their images stay until images are collected. 409 while it is built.",
      params: SandboxId,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ params, sandboxes }) => {
      specOf(params.id, sandboxes);
      await environments.remove(params.id, sandboxes.only);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/specs/{id}/suggestions",
      scope: "read",
      tag,
      summary: "Packages that others often add",
      params: SandboxId,
      responses: {
        200: { description: "Names", schema: z.object({ spec_id: z.string(), suggestions: z.array(z.string()) }) },
      },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      const { baseImage } = specOf(params.id, sandboxes);
      const python = baseImage.toLowerCase().includes("python") ? ["pandas", "numpy"] : [];
      return json({ spec_id: params.id, suggestions: ["pytest", "requests", "python-dotenv", ...python] });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/environments/builds",
      scope: "use",
      tag,
      summary: "Build an environment, in a sandbox",
      description:
        "One is done after another, owners in turn. It may connect to `environments.allowed_hosts` when it has packages. The only target is `local`; `ghcr` and `dockerhub` are 501.",
      body: BuildRequest,
      responses: { 201: { description: "It is queued", schema: BuildBody } },
      errors: [403, 404, 501],
    },
    async ({ body, sandboxes, user }) => {
      for (const target of body.targets ?? []) assertLocal(target);
      const spec = specOf(body.spec_id, sandboxes);
      policies.checkImage(spec.owner, spec.baseImage);
      const packages = spec.pythonPackages.length + spec.aptPackages.length > 0;
      const build = await environments.start(spec, (image, abort) =>
        sandboxes.borrow(
          {
            image,
            imageChecked: true,
            diskMiB: BUILD_DISK_MIB,
            metadata: { purpose: "environment-build", environment: spec.id },
            forkable: false,
            ...(user === undefined ? {} : { ownerId: user }),
            ...(packages ? { allowedHosts: config.environments.allowed_hosts } : {}),
          },
          abort,
        ),
      );
      return json(buildBody(build), 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/builds",
      scope: "read",
      tag,
      summary: "A user's builds",
      query: OwnerQuery.extend({ limit: whole(1, 200).default(30) }),
      responses: {
        200: { description: "Newest first", schema: z.array(z.object({ build: BuildBody, spec: SpecBody })) },
      },
    },
    ({ query, sandboxes }) => {
      const specs = environments.specs(query.owner_id, sandboxes.only);
      const all = specs.flatMap((spec) => environments.builds(spec.id).map((build) => ({ build, spec })));
      all.sort((a, b) => b.build.createdAt - a.build.createdAt);
      return json(
        all.slice(0, query.limit).map(({ build, spec }) => ({ build: buildBody(build), spec: specBody(spec) })),
      );
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/builds/{id}",
      scope: "read",
      tag,
      summary: "One build",
      params: SandboxId,
      responses: { 200: { description: "The build", schema: BuildBody } },
      errors: [404],
    },
    ({ params, sandboxes }) => json(buildBody(buildOf(params.id, sandboxes))),
  );
  endpoints.add(
    {
      method: "post",
      path: "/environments/builds/{id}/cancel",
      scope: "use",
      tag,
      summary: "End a build",
      params: SandboxId,
      responses: { 200: { description: "The build", schema: BuildBody } },
      errors: [404, 409],
    },
    async ({ params, sandboxes }) => {
      buildOf(params.id, sandboxes);
      return json(buildBody(await environments.cancel(params.id, sandboxes.only)));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/environments/builds/{id}/spawn-config",
      scope: "read",
      tag,
      summary: "What to spawn when a build is ready",
      params: SandboxId,
      responses: {
        200: {
          description: "The image's name",
          schema: z.object({
            build_id: z.string(),
            build_status: z.string(),
            ready: z.boolean(),
            provider: z.string(),
            image: z.string(),
            target: z.string(),
            digest: z.string(),
            note: z.string(),
          }),
        },
      },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      const build = buildOf(params.id, sandboxes);
      return json({
        build_id: build.id,
        build_status: build.status,
        ready: build.status === "ready",
        provider: providers.names[0] ?? "",
        image: build.image,
        target: "local",
        digest: build.digest ?? "",
        note:
          build.status === "ready"
            ? "spawn a sandbox with exactly this image"
            : `there is no image: the build is ${build.status}; its log says more`,
      });
    },
  );

  endpoints.add(
    {
      method: "get",
      path: "/environments/registry-connections",
      scope: "read",
      tag,
      summary: "Registries to push to: none",
      query: OwnerQuery,
      responses: { 200: { description: "None", schema: z.array(z.record(z.string(), z.unknown())) } },
    },
    () => json([]),
  );
  endpoints.add(
    {
      method: "post",
      path: "/environments/registry-connections",
      scope: "use",
      tag,
      summary: "Nothing is pushed from here",
      description: "501.",
      responses: {},
      errors: [501],
    },
    pushesNothing,
  );
  endpoints.add(
    {
      method: "delete",
      path: "/environments/registry-connections/{id}",
      scope: "use",
      tag,
      summary: "Of a registry to push to: there is none",
      params: SandboxId,
      responses: {},
      errors: [404],
    },
    ({ params }) => {
      throw new StacyError("not-found", `there is no connection ${JSON.stringify(params.id.slice(0, 64))}`);
    },
  );
}

function pushesNothing(): never {
  throw new StacyError("not-supported", "this server pushes no images to registries", {
    remedy: "build for the target `local`; to share an image, push it with another tool and name it as the base",
  });
}

function assertLocal(target: string): void {
  if (target === "local") return;
  if (target === "ghcr" || target === "dockerhub") pushesNothing();
  throw new StacyError("invalid", `targets: ${JSON.stringify(target.slice(0, 64))} is none; there is local`);
}

function specBody(spec: Spec): z.output<typeof SpecBody> {
  return {
    id: spec.id,
    owner_id: spec.user,
    name: spec.name,
    base_image: spec.baseImage,
    python_packages: spec.pythonPackages,
    apt_packages: spec.aptPackages,
    ...(spec.pythonVersion === undefined ? {} : { python_version: spec.pythonVersion }),
    created_at: iso(spec.createdAt),
    updated_at: iso(spec.createdAt),
  };
}

const ARTIFACT_STATUS = {
  queued: "pending",
  building: "pending",
  ready: "ready",
  failed: "failed",
  canceled: "failed",
};

function buildBody(build: Build): z.output<typeof BuildBody> {
  const [createdAt, updatedAt] = [iso(build.createdAt), iso(build.updatedAt)];
  const error = build.error === undefined ? {} : { error: build.error };
  return {
    id: build.id,
    spec_id: build.specId,
    status: build.status,
    current_step: build.step,
    log: build.log,
    image_size_bytes: build.sizeBytes,
    ...(build.digest === undefined ? {} : { digest_local: build.digest }),
    ...error,
    created_at: createdAt,
    ...(build.finishedAt === undefined ? {} : { finished_at: iso(build.finishedAt) }),
    updated_at: updatedAt,
    artifacts: [
      {
        target: "local",
        image_ref: build.image,
        ...(build.digest === undefined ? {} : { digest: build.digest }),
        status: ARTIFACT_STATUS[build.status],
        ...error,
        created_at: createdAt,
        updated_at: updatedAt,
      },
    ],
  };
}
