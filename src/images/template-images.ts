/**
 * Images that builds of templates make: `stacyvm/template/<template>:<build>`, which no registry can have. They are their template's
 * owner's, and live as long as one of its templates names them: without it they go with the next collection.
 */
import { asStacyError } from "../host/error.ts";
import type { ImageUse, ImageUsers } from "./care.ts";
import type { ImageLibrary } from "./image.ts";
import { OWN_PREFIX } from "./reference.ts";

const PREFIX = `${OWN_PREFIX}template/`;
const NAME = /^[a-z0-9]{1,64}:[a-z0-9]{1,64}$/;

/** @param template, build lower-case letters and digits */
export function templateImage(template: string, build: string): string {
  return `${PREFIX}${template}:${build}`;
}

export function isTemplateImage(reference: string): boolean {
  return reference.startsWith(PREFIX) && NAME.test(reference.slice(PREFIX.length));
}

/** Says which of them are needed, to whoever collects. */
export class TemplateImages implements ImageUsers {
  readonly #images: ImageLibrary;
  readonly #templates: () => readonly { owner: string; image: string }[];

  /** @param templates all that there are, of every owner */
  constructor(images: ImageLibrary, templates: () => readonly { owner: string; image: string }[]) {
    this.#images = images;
    this.#templates = templates;
  }

  async imageUse(): Promise<ImageUse> {
    const templates = new Set<string>();
    for (const { owner, image } of this.#templates()) {
      if (!isTemplateImage(image)) continue;
      const found = await this.#images.of({ name: owner }).inspect(image).catch(notHere);
      if (found !== undefined) templates.add(found.digest);
    }
    return { needed: templates, golden: [], templates };
  }

  /** There are none: golden snapshots belong to who makes machines. */
  removeSnapshot(): Promise<void> {
    return Promise.resolve();
  }
}

/** One that is not here cannot be collected either; of one that could not be looked at nobody knows that. */
function notHere(thrown: unknown): undefined {
  if (asStacyError(thrown).code !== "not-found") throw thrown;
}
