/** The end of an image that a build of a template made: with the last template that names it. */
import { setTimeout as sleep } from "node:timers/promises";
import { asStacyError } from "../../host/error.ts";
import { retireImage } from "../../images/care.ts";
import { isTemplateImage } from "../../images/template-images.ts";
import type { View } from "../../sandboxes/view.ts";
import type { E2bParts } from "../parts.ts";

/** A machine that is just being saved or ended holds its image for a moment. */
const AGAIN_MS = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 120_000, 600_000];

/**
 * Removes those of the images that no template names any more, with their golden snapshots. One that is still in use is tried again;
 * one that a sandbox runs from for longer goes when images are collected.
 * @returns `tried` settles when nothing is tried any more, and what was removed is removed
 */
export async function letGo(
  parts: E2bParts,
  sandboxes: View,
  images: Iterable<string>,
): Promise<{ tried: Promise<unknown> }> {
  const later: Promise<void>[] = [];
  for (const image of new Set(images)) {
    if (isTemplateImage(image) && !(await isGone(parts, sandboxes, image)))
      later.push(tryAgain(parts, sandboxes, image));
  }
  return { tried: Promise.all(later) };
}

/** Until the server stops. Never rejects. */
async function tryAgain(parts: E2bParts, sandboxes: View, image: string): Promise<void> {
  for (const ms of AGAIN_MS) {
    await sleep(ms, undefined, { signal: parts.stopping, ref: false }).catch(() => {});
    if (parts.stopping.aborted || (await isGone(parts, sandboxes, image))) return;
  }
}

/** @returns false when it is in use; true also for what a template names */
async function isGone(parts: E2bParts, sandboxes: View, image: string): Promise<boolean> {
  if (sandboxes.templates.list().some((template) => template.image === image)) return true;
  try {
    await retireImage(parts.images.of({ name: sandboxes.owner }), parts.imageUsers, image);
    return true;
  } catch (thrown) {
    const error = asStacyError(thrown);
    if (error.code === "conflict") return false;
    if (error.code !== "not-found") parts.log.warn({ image, err: error }, "the image of a template was not removed");
    return true;
  }
}
