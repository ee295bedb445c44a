/** What the name of a template means here: a template of this server, a checkpoint, a name of E2B's, or an image. */
import { StacyError } from "../../host/error.ts";
import type { SpawnInput } from "../../sandboxes/resolve.ts";
import type { View } from "../../sandboxes/view.ts";

/** Names that E2B's clients send by themselves. */
const STAND_INS: Record<string, string> = {
  base: "stacyvm/python",
  "code-interpreter-v1": "stacyvm/python",
};

/** @throws StacyError `not-found` */
export function sourceOf(name: string, sandboxes: View): Pick<SpawnInput, "template" | "checkpoint" | "image"> {
  if (sandboxes.templates.list().some((template) => template.name === name)) return { template: name };
  if (/^cp-[0-9a-f]{8}$/.test(name)) return { checkpoint: name };
  const named = sandboxes.checkpoints.list().find((checkpoint) => checkpoint.name === name);
  if (named !== undefined) return { checkpoint: named.id };
  const image = STAND_INS[name];
  if (image !== undefined) return { image };
  if (/[/:]/.test(name)) return { image: name };
  throw new StacyError("not-found", `template '${name}' not found`, {
    remedy: "make a template of that name, or name an image with its tag, such as alpine:latest",
  });
}
