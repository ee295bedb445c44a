/** `ls --filter`: which sandboxes to list, by name, state, image, id, template or label. */
import { InvalidArgumentError } from "commander";
import type { SandboxInfo } from "../../sdk/src/index.ts";
import { ownValue } from "../host/own-value.ts";

export type Filter = (info: SandboxInfo) => boolean;

const BY: Record<string, (value: string) => Filter> = {
  name: (value) => (info) => info.name?.includes(value) === true,
  // As the list shows it.
  state: (value) => (info) => (info.unreachable === undefined ? info.state : "unreachable") === value,
  image: (value) => (info) => info.image === value || info.image.startsWith(`${value}:`),
  id: (value) => (info) => info.id.startsWith(value),
  template: (value) => (info) => info.template === value,
  label: (value) => {
    const at = value.indexOf("=");
    const name = at === -1 ? value : value.slice(0, at);
    return ({ metadata }) => {
      const found = ownValue(metadata ?? {}, name);
      return at === -1 ? found !== undefined : found === value.slice(at + 1);
    };
  },
};
/** What Docker calls them. */
const HABITS: Record<string, string> = { status: "state", ancestor: "image" };

/** As Docker has it: several of one kind are alternatives, different kinds hold together. */
export class Filters {
  readonly #byKind = new Map<string, Filter[]>();

  /** @param text `state=running`, `label=team`, `label=team=a` @throws InvalidArgumentError */
  add(text: string): this {
    const [, given = "", value = ""] = /^(\w+)=(.*)$/s.exec(text) ?? [];
    const kind = ownValue(HABITS, given) ?? given;
    const filter = ownValue(BY, kind);
    if (filter === undefined || value === "") {
      throw new InvalidArgumentError(`write ${Object.keys(BY).join("=, ")}= and what it must be.`);
    }
    this.#byKind.set(kind, [...(this.#byKind.get(kind) ?? []), filter(value)]);
    return this;
  }

  take(info: SandboxInfo): boolean {
    return [...this.#byKind].every(([kind, filters]) =>
      kind === "label" ? filters.every((filter) => filter(info)) : filters.some((filter) => filter(info)),
    );
  }
}
