/** Building an image over HTTP: the body is a tar of the build's files, the steps are one of them. */
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { type BuildOptions, buildImage } from "../../builder/build.ts";
import { BuildContext } from "../../builder/context.ts";
import { BUILD_FILES } from "../../builder/plan.ts";
import { readPlan } from "../../builder/read-plan.ts";
import { BUILD_BOUNDS } from "../../host/bounds.ts";
import { nameText } from "../../host/byte-name.ts";
import { StacyError } from "../../host/error.ts";
import { DEFAULT_SIZE } from "../../sandboxes/limits.ts";
import { bodyStream } from "../body.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { progressStream } from "../progress-stream.ts";
import { Flag, whole } from "../schemas/common.ts";
import { ImageBody, imageBody, Name } from "../schemas/image.ts";
import { naming } from "./images.ts";

const Query = z.object({
  reference: Name,
  file: z
    .string()
    .min(1)
    .max(4096)
    .optional()
    .openapi({ description: `Default: ${BUILD_FILES.join(" or ")}.` }),
  target: z.string().min(1).max(200).optional().openapi({ description: "A Dockerfile's stage; default: the last." }),
  arg: z.string().optional().openapi({ description: "`K=V` for a Dockerfile's ARG; may repeat." }),
  allow: z.string().optional().openapi({ description: "A host that its commands may connect to; may repeat." }),
  pull: Flag,
  no_cache: Flag,
  memory_mb: whole(64, 1 << 20).default(DEFAULT_SIZE.memoryMiB),
  vcpus: whole(1, 32).default(DEFAULT_SIZE.vcpus),
  disk_mb: whole(16, 1 << 24).default(8192),
  shared: Flag,
  stream: Flag,
});
const BuildBody = ImageBody.extend({
  steps: z.int(),
  /** Steps that were not done again. */
  cached_steps: z.int(),
}).openapi("ImageBuild");

export function imageBuildRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { config } = parts;
  const upload = { maxBytes: config.server.max_upload_bytes, timeoutMs: config.server.body_timeout };
  endpoints.add(
    {
      method: "post",
      path: "/images/build",
      scope: "admin",
      tag: "images",
      summary: "Build an image in a sandbox from a file of steps",
      description:
        "With `stream=true`: NDJSON, progress and `{output}` of the commands per line, at last `{image}` or `{error}`.",
      query: Query,
      rawBody: "application/x-tar",
      responses: { 200: { description: "The image", schema: BuildBody, type: "application/x-ndjson" } },
      errors: [404, 408, 409, 413, 501, 503, 507],
    },
    async ({ c, sandboxes, images: own, query, user, signal }) => {
      const images = naming(own, sandboxes.owner, query.shared);
      await using open = new AsyncDisposableStack();
      const work = open.use(await images.scratch());
      const context = open.use(
        await BuildContext.ofTar(bodyStream(c.req.raw, upload), join(work.path, "context"), {
          party: images.owner,
          buildFiles: query.file === undefined ? BUILD_FILES : [inArchive(query.file)],
          signal,
        }),
      );
      const plan = readPlan(await planText(context, query.file), {
        args: assignments(c.req.queries("arg") ?? []),
        ...(query.target === undefined ? {} : { target: query.target }),
      });
      const allowedHosts = c.req.queries("allow");
      const options: BuildOptions = {
        images,
        context,
        signal,
        pull: query.pull,
        noCache: query.no_cache,
        diskMiB: query.disk_mb,
        start: (image, abort) =>
          sandboxes.borrow(
            {
              image,
              imageChecked: true, // an administrator builds
              memoryMiB: query.memory_mb,
              vcpus: query.vcpus,
              diskMiB: query.disk_mb,
              metadata: { purpose: "image-build", builds: query.reference },
              forkable: false,
              ...(user === undefined ? {} : { ownerId: user }),
              ...(allowedHosts === undefined ? {} : { allowedHosts }),
            },
            abort,
          ),
      };
      const held = open.move();
      const build = async (report: Pick<BuildOptions, "progress" | "output">): Promise<z.output<typeof BuildBody>> => {
        await using _held = held;
        const { image, steps, cached } = await buildImage(plan, query.reference, { ...options, ...report });
        return { ...imageBody(image), steps, cached_steps: cached };
      };
      if (!query.stream) return json(await build({}));
      return progressStream(
        async (progress, output) => ({ image: await build({ progress, output }) }),
        c.get("requestId"),
      );
    },
  );
}

function inArchive(name: string): string {
  return name.replace(/^(\.?\/)+/, "");
}

async function planText(context: BuildContext, wanted: string | undefined): Promise<string> {
  for (const name of wanted === undefined ? BUILD_FILES : [wanted]) {
    const entry = context.instructions(inArchive(name));
    if (entry?.type === "file") return nameText(await context.content(entry, BUILD_BOUNDS.planBytes));
  }
  throw new StacyError("not-found", `the archive has no ${wanted ?? BUILD_FILES.join(" and no ")}`, {
    remedy: "name the file of steps with `file`",
  });
}

function assignments(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const at = entry.indexOf("=");
      if (at <= 0) throw new StacyError("invalid", "arg: must be K=V");
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}
