/** The end of an image that a build of a template made: with the last template that names it. */
import { asStacyError } from "../../host/error.ts";
import { retireImage } from "../../images/care.ts";
import { isTemplateImage } from "../../images/template-images.ts";
import type { View } from "../../sandboxes/view.ts";
import type { E2bParts } from "../parts.ts";

/**
 * Removes those of the images that no template names any more, with their golden snapshots. One that a sandbox still runs from, or
 * that cannot be removed now, goes when images are collected.
 */
export async function letGo(parts: E2bParts, sandboxes: View, images: Iterable<string>): Promise<void> {
  const named = new Set(sandboxes.templates.list().map(({ image }) => image));
  for (const image of new Set(images)) {
    if (!isTemplateImage(image) || named.has(image)) continue;
    await retireImage(parts.images.of({ name: sandboxes.owner }), parts.imageUsers, image).catch((thrown) => {
      const error = asStacyError(thrown);
      if (error.code !== "not-found" && error.code !== "conflict") {
        parts.log.warn({ image, err: error }, "the image of a template was not removed");
      }
    });
  }
}
