/** Names of templates: `name` is the one with the tag `default`, `name:tag` another; all tags of a name have one id. */
import { createHash, randomBytes } from "node:crypto";
import { StacyError } from "../../host/error.ts";
import { ownValue } from "../../host/own-value.ts";
import type { Template } from "../../sandboxes/record.ts";
import type { TemplateInput } from "../../sandboxes/templates.ts";
import type { View } from "../../sandboxes/view.ts";
import { E2bError } from "../error.ts";

export const DEFAULT_TAG = "default";

/** What is remembered of a template that a client has built. */
export const OWN = {
  id: "stacyvm.e2b/template-id",
  build: "stacyvm.e2b/build",
  name: "stacyvm.e2b/name",
  tag: "stacyvm.e2b/tag",
} as const;

const NAME = /^[a-z0-9][a-z0-9._-]{0,100}$/i;

/** Other names that clients have for what every server has. */
const OTHER_NAMES: Record<string, string> = { "code-interpreter-v1": "code-interpreter" };

/** @throws StacyError `invalid` */
export function parseName(text: string): { name: string; tag: string } {
  const [name = "", tag = DEFAULT_TAG, more] = text.split(":");
  if (!NAME.test(name) || !NAME.test(tag) || more !== undefined) {
    throw new StacyError("invalid", `'${text.slice(0, 128)}' is not the name of a template`, {
      remedy: "use letters, digits, '-', '_' and '.', and a tag after ':'",
    });
  }
  return { name, tag };
}

export function nameOf(name: string, tag: string): string {
  return tag === DEFAULT_TAG ? name : `${name}:${tag}`;
}

/** What names mean to the caller. An administrator sees the others' too, and means none of them: their owners gave them their names. */
function meant(sandboxes: View): Template[] {
  const all = sandboxes.templates.list();
  const own = all.filter(({ owner }) => owner === sandboxes.owner);
  return [...own, ...all.filter(({ owner, shared }) => owner !== sandboxes.owner && shared === true)];
}

/** By its name, with or without a tag, or its id; the owner's own, then what is shared, then the server's own. */
export function findTemplate(text: string, sandboxes: View): Template | undefined {
  const all = meant(sandboxes);
  const plain = text.endsWith(`:${DEFAULT_TAG}`) ? text.slice(0, -DEFAULT_TAG.length - 1) : text;
  const [id, tag = DEFAULT_TAG] = plain.split(":");
  const found =
    all.find(({ name }) => name === plain) ??
    all.find(({ metadata }) => metadata[OWN.id] === id && metadata[OWN.tag] === tag);
  if (found !== undefined) return found;
  try {
    return sandboxes.templates.get(ownValue(OTHER_NAMES, plain) ?? plain);
  } catch (error) {
    if (error instanceof StacyError && error.code === "not-found") return undefined;
    throw error;
  }
}

/** The same, of which there has to be one. @throws E2bError 404 */
export function getTemplate(text: string, sandboxes: View): Template {
  const found = findTemplate(text, sandboxes);
  if (found === undefined) throw new E2bError(404, missing(text, sandboxes));
  return found;
}

/** How one that is not there is called: a name may have other tags than the one that was meant. */
export function missing(text: string, sandboxes: View): string {
  const [plain = "", tag = DEFAULT_TAG] = text.slice(0, 128).split(":");
  const other = findNamed(plain, sandboxes);
  if (other === undefined) return `template '${text.slice(0, 128)}' not found`;
  return `template '${plain}' has no tag '${tag}', but others: '${other.name}' for one`;
}

/** The name with its tags, each of which is a template here. */
export function wholeName({ name, metadata }: Template): string {
  return metadata[OWN.name] ?? name;
}

/** Each name of a list once: as its tag `default`, or else as the latest of its tags. */
export function byName(templates: readonly Template[]): Template[] {
  const names = new Map<string, Template>();
  const isDefault = ({ metadata }: Template): boolean => (metadata[OWN.tag] ?? DEFAULT_TAG) === DEFAULT_TAG;
  for (const each of templates) {
    const key = JSON.stringify([each.owner, wholeName(each)]);
    const known = names.get(key);
    const later = known === undefined || (!isDefault(known) && each.updatedAt > known.updatedAt);
    if (later || isDefault(each)) names.set(key, each);
  }
  return [...names.values()];
}

function findNamed(text: string, sandboxes: View): Template | undefined {
  const all = byName(meant(sandboxes));
  return all.find((each) => wholeName(each) === text) ?? all.find(({ metadata }) => metadata[OWN.id] === text);
}

/** A name or an id alone is there whatever its tags are; with a tag only that one is meant. @throws E2bError 404 */
export function getNamed(text: string, sandboxes: View): Template {
  return findNamed(text, sandboxes) ?? getTemplate(text, sandboxes);
}

/** All tags of an owner's template, by its name or id. @throws StacyError `invalid` */
export function ownTags(text: string, sandboxes: View): Template[] {
  const { name } = parseName(text);
  const all = sandboxes.templates.list().filter(({ owner }) => owner === sandboxes.owner);
  return all.filter((each) => each.name === name || each.metadata[OWN.id] === name || wholeName(each) === name);
}

/** The same, where there has to be one. @throws StacyError `invalid`, E2bError 404 */
export function tagsOf(text: string, sandboxes: View): Template[] {
  const found = ownTags(text, sandboxes);
  if (found.length === 0) throw new E2bError(404, `template '${parseName(text).name}' not found`);
  return found;
}

/** Of a name that was built before, or a fresh one. @param building the one that its builds have, of which none may be done */
export function idOf(name: string, sandboxes: View, building: string | undefined): string {
  const known = meant(sandboxes).find(({ metadata }) => metadata[OWN.name] === name)?.metadata[OWN.id];
  return known ?? building ?? randomBytes(10).toString("hex");
}

/** Of what no build of a client's made, too: clients read the id as a UUID. @returns 32 hexadecimal digits */
export function buildIdOf({ owner, name, version, metadata }: Template): string {
  const text = JSON.stringify([owner, name, version]);
  return metadata[OWN.build] ?? createHash("sha256").update(text).digest("hex").slice(0, 32);
}

type Remembered = Partial<TemplateInput> & Pick<TemplateInput, "image" | "memoryMiB" | "vcpus" | "metadata">;

/** Makes it, or puts it in the place of the one of that name. */
export async function remember(sandboxes: View, name: string, template: Remembered): Promise<Template> {
  const input: TemplateInput = {
    ...{ description: "", setup: [], allowedHosts: [], ttlMs: 300_000, env: {}, secrets: [], poolSize: 0 },
    ...template,
    name,
  };
  const own = sandboxes.templates.list().some((each) => each.name === name && each.owner === sandboxes.owner);
  return own ? await sandboxes.templates.replace(name, input) : await sandboxes.templates.create(input);
}
