/** How names stand in `refs.json`: everybody's as they are, an owner's own with whose they are before them. */
import { builtinDigest } from "./builtin.ts";
import type { ImageOwner } from "./image.ts";

export interface RefName {
  /** In full. */
  name: string;
  /** Absent: everybody's. */
  owner?: string;
}

/** No reference has a space. */
const OWNED = /^owner=(\S+) (\S+)$/;

/** A changed recipe makes another image of the same name. */
export function writeKey({ name, owner }: RefName): string {
  if (owner !== undefined) return `owner=${owner} ${name}`;
  const recipe = builtinDigest(name);
  return recipe === undefined ? name : `${name}@recipe${recipe}`;
}

/** `undefined` for what an older recipe made. */
export function readKey(key: string): RefName | undefined {
  const [, owner, owned] = OWNED.exec(key) ?? [];
  if (owner !== undefined && owned !== undefined) return { name: owned, owner };
  const name = key.replace(/@recipe[0-9a-f]+$/, "");
  return writeKey({ name }) === key ? { name } : undefined;
}

/** @param by absent: the operator, who sees all */
export function isVisible({ owner }: RefName, by: ImageOwner | undefined): boolean {
  return owner === undefined || by === undefined || by.everything === true || owner === by.name;
}
