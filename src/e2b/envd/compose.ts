/** `/files/compose`: files put together, in their order, to one that takes their place. */
import { posix } from "node:path";
import { z } from "zod";
import { readJson } from "../../api/body.ts";
import { maybe } from "../../api/schemas/common.ts";
import type { Agent } from "../../guest/agent.ts";
import { missingDirectories } from "../../guest/exists.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { schemaWords } from "../../host/schema-words.ts";
import type { E2bParts } from "../parts.ts";
import type { Guest } from "./guest.ts";
import { give, pathOf } from "./users.ts";

const Wish = z.object({
  source_paths: z.array(z.string()).min(1).max(E2B_BOUNDS.formFiles),
  destination: z.string().min(1),
  username: maybe(z.string()),
});

/** @param owner whose sandbox it is. @throws StacyError `invalid`, `not-found` before anything is changed */
export async function composeFiles(
  { config }: Pick<E2bParts, "config">,
  guest: Guest,
  request: Request,
  owner: string,
): Promise<Response> {
  using held = new HeldInput(owner);
  const limits = { maxBytes: config.server.max_json_bytes, timeoutMs: config.server.body_timeout };
  const wish = Wish.safeParse((await readJson(request, limits, held)) ?? {}, { error: schemaWords });
  if (!wish.success) {
    const [issue] = wish.error.issues;
    throw new StacyError("invalid", `${issue?.path.join(".") || "the body"}: ${issue?.message}`);
  }
  const { agent } = guest;
  const user = (await guest.users()).find(wish.data.username ?? guest.userName);
  const sources = wish.data.source_paths.map((path) => pathOf(path, user));
  const target = pathOf(wish.data.destination, user);
  for (const path of new Set(sources)) {
    if ((await agent.stat(path)).kind !== "file") throw new StacyError("invalid", `${path} is not a regular file`);
  }
  const made = await missingDirectories(agent, posix.dirname(target));
  // Beside it and renamed: it may be one of them itself.
  await agent.writeFile(target, contents(agent, sources, request.signal), { atomic: true });
  await give(agent, user, [...made, target]);
  for (const path of new Set(sources)) {
    if (path !== target) await agent.remove(path);
  }
  return Response.json({ name: posix.basename(target), type: "file", path: target });
}

async function* contents(
  agent: Pick<Agent, "readStream">,
  paths: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (const path of paths) yield* (await agent.readStream(path, { signal })).stream;
}
