/** Golden snapshots of other nodes: before this one builds a machine's, it asks whether somebody has it. */
import { chmod, stat } from "node:fs/promises";
import { z } from "zod";
import { StacyError } from "../../host/error.ts";
import type { Sandboxes } from "../../sandboxes/sandboxes.ts";
import type { Between } from "../between.ts";
import type { Directory, FleetNode } from "../contract.ts";
import { contentOf, contentSchema } from "./pieces.ts";
import { sourceOf } from "./things.ts";
import { receive } from "./transfer.ts";

const questionSchema = z.strictObject({ key: z.string().regex(/^[0-9a-f]{64}$/) });
const answerSchema = z.object({
  files: z.record(
    z.string().regex(/^[a-z0-9]+\.(bin|ext4)$/),
    z.object({ mode: z.int().min(0).max(0o777), content: contentSchema }),
  ),
});
type Answer = z.infer<typeof answerSchema>;

/** For a node to read one and say what is in it. */
const ASK_MS = 60_000;

export interface GoldensParts {
  directory: Directory;
  between: Between;
  sandboxes: Pick<Sandboxes, "providers">;
}

export function shareGoldens({ directory, between, sandboxes }: GoldensParts): void {
  between.on("golden", async (body, { signal }) => {
    const { key } = questionSchema.parse(body);
    const files: Answer["files"] = {};
    for (const [name, path] of Object.entries(await pathsOf(sandboxes, key))) {
      files[name] = { mode: (await stat(path)).mode & 0o777, content: await contentOf(path, signal) };
    }
    return { files };
  });
  const bring = async (key: string, path: (name: string) => string, signal: AbortSignal): Promise<boolean> => {
    const { self } = directory;
    // What of the host it depends on is in its key; others would only look for it in vain.
    const others = directory.nodes().filter(({ id, state, role, architecture }) => {
      return id !== self.id && state === "up" && role === "node" && architecture === self.architecture;
    });
    for (const node of others) {
      const files = await ask(between, node, key, signal);
      if (files === undefined) continue;
      // All of one node: two that have built it each by itself have two machines of one key.
      for (const [name, { mode, content }] of Object.entries(files)) {
        const source = sourceOf(between, node, { kind: "golden", key, file: name });
        await receive(path(name), content, [source], { signal });
        await chmod(path(name), mode);
      }
      return true;
    }
    return false;
  };
  for (const { travel } of sandboxes.providers.all()) travel?.askForGoldens(bring);
}

/** Of a golden snapshot, whichever provider's. @throws StacyError `not-found` */
export async function pathsOf(sandboxes: Pick<Sandboxes, "providers">, key: string): Promise<Record<string, string>> {
  for (const { travel } of sandboxes.providers.all()) {
    const found = await travel?.golden(key);
    if (found !== undefined) return found;
  }
  throw new StacyError("not-found", `there is no golden snapshot ${key.slice(0, 12)} here`);
}

/** @returns `undefined`: that node does not have it, or does not say */
async function ask(
  between: Between,
  node: FleetNode,
  key: string,
  signal: AbortSignal,
): Promise<Answer["files"] | undefined> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]);
  const said = await between.ask(node, "golden", { key }, answerSchema, limit).catch(() => undefined);
  return said?.files;
}
