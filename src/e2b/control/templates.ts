/** What the name of a template means here: a template, by its name, tag or id; a checkpoint; or an image. */
import { StacyError } from "../../host/error.ts";
import type { SpawnInput } from "../../sandboxes/resolve.ts";
import type { View } from "../../sandboxes/view.ts";
import { findTemplate, missing } from "../templates/names.ts";

/** @throws StacyError `not-found` */
export function sourceOf(name: string, sandboxes: View): Pick<SpawnInput, "template" | "checkpoint" | "image"> {
  const template = findTemplate(name, sandboxes);
  if (template !== undefined) return { template: template.name };
  if (/^cp-[0-9a-f]{8}$/.test(name)) return { checkpoint: name };
  const named = sandboxes.checkpoints.list().find((checkpoint) => checkpoint.name === name);
  if (named !== undefined) return { checkpoint: named.id };
  // `name:tag` is a template's tag, whatever Docker Hub has of that name: without the template it is nothing.
  if (name.includes("/")) return { image: name };
  throw new StacyError("not-found", missing(name, sandboxes), {
    remedy: "make a template of that name, or name an image in full, such as docker.io/library/alpine:latest",
  });
}
