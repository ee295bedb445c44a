/**
 * Templates: kept in memory, written through to the database, and applied: a pool per template, set-up in the golden machine.
 * Names are each owner's own; a shared one is found by every owner that has none of that name.
 */
import { BUILT_IN_GROUPS, type HostGroups } from "../egress/host-groups.ts";
import { HostRules } from "../egress/host-rules.ts";
import { OWNER_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { ownValue } from "../host/own-value.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Template } from "./record.ts";
import { byVariable } from "./secrets.ts";
import type { Store } from "./store.ts";
import { checkVolumes, layOut } from "./volume-mounts.ts";

/** What a person can read and type, without white space at its ends; `.` and `..` mean something else in a path, however written. */
export const TEMPLATE_NAME = /^(?!\.\.?$)(?=[^\s\p{C}])[^\p{C}\p{Zl}\p{Zp}]{1,128}(?<!\s)$/u;

export type TemplateInput = Omit<Template, "owner" | "createdAt" | "updatedAt" | "version"> & { version?: number };

/** Where they are kept. */
export type TemplateStore = Pick<Store, "templates" | "putTemplate" | "deleteTemplate">;

export class Templates {
  readonly #store: TemplateStore;
  readonly #clock: Clock;
  readonly #events: Events;
  /** By owner, then by name. */
  readonly #byOwner = new Map<string, Map<string, Template>>();
  /** Each change looks first, and what it saw has to hold until it is written. */
  readonly #changes = new SerialQueue();
  readonly #groups: HostGroups;
  readonly #changed: () => void;

  /** @param changed is told after each change */
  constructor(parts: { store: TemplateStore; clock: Clock; events: Events; groups?: HostGroups }, changed: () => void) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#groups = parts.groups ?? BUILT_IN_GROUPS;
    this.#changed = changed;
    for (const template of this.#store.templates()) this.#of(template.owner).set(template.name, template);
  }

  /** All, by name; of one owner: its own, and what is shared with it. */
  list(owner?: string): Template[] {
    const all = [...this.#byOwner.values()].flatMap((each) => [...each.values()]);
    const own = owner === undefined ? undefined : this.#of(owner);
    const found =
      own === undefined ? all : [...own.values(), ...all.filter((each) => each.shared === true && !own.has(each.name))];
    return found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.owner < b.owner ? -1 : 1));
  }

  /** What the name means to this owner: a template of its own, a shared one, or one that every server has. @throws StacyError `not-found` */
  get(owner: string, name: string): Template {
    const found = this.#byOwner.get(owner)?.get(name) ?? this.#shared(name) ?? ownValue(BUILT_IN, name);
    if (found === undefined) throw unknown(name);
    return found;
  }

  /** @throws StacyError `conflict` when there is one of that name */
  create(owner: string, input: TemplateInput): Promise<Template> {
    return this.#changes.run(() => {
      if (this.#byOwner.get(owner)?.has(input.name) === true) {
        throw new StacyError("conflict", `the template ${input.name} exists already`, {
          remedy: `choose another name, or replace it: PUT /api/v1/templates/${input.name}, \`template create --replace\``,
        });
      }
      if (this.#of(owner).size >= OWNER_BOUNDS.templates) {
        throw new StacyError("limit", `there are ${OWNER_BOUNDS.templates} templates already`, {
          remedy: "delete some",
        });
      }
      const now = this.#clock.now();
      const fresh = { ...input, owner, version: input.version ?? 1, createdAt: now, updatedAt: now };
      return this.#save(fresh);
    });
  }

  /** Only the owner's own. @throws StacyError `not-found` */
  replace(owner: string, name: string, input: TemplateInput): Promise<Template> {
    return this.#changes.run(() => {
      const before = this.#own(owner, name);
      const { shared } = before;
      const next = {
        ...(shared === undefined ? {} : { shared }),
        ...input,
        owner,
        name,
        version: input.version ?? before.version + 1,
        createdAt: before.createdAt,
        updatedAt: this.#clock.now(),
      };
      return this.#save(next);
    });
  }

  /** Only the owner's own. @throws StacyError `not-found` */
  remove(owner: string, name: string): Promise<void> {
    return this.#changes.run(async () => {
      this.#own(owner, name);
      await this.#store.deleteTemplate(owner, name);
      this.#of(owner).delete(name);
      this.#events.emit("template.deleted", undefined, { name }, owner);
      this.#changed();
    });
  }

  /** These and no others, as several servers have agreed upon. */
  take(all: readonly Template[]): void {
    this.#byOwner.clear();
    for (const template of all) this.#of(template.owner).set(template.name, template);
    this.#changed();
  }

  #of(owner: string): Map<string, Template> {
    const found = this.#byOwner.get(owner) ?? new Map<string, Template>();
    this.#byOwner.set(owner, found);
    return found;
  }

  #own(owner: string, name: string): Template {
    const found = this.#byOwner.get(owner)?.get(name);
    if (found === undefined) throw unknown(name);
    return found;
  }

  #shared(name: string): Template | undefined {
    for (const each of this.#byOwner.values()) {
      const found = each.get(name);
      if (found?.shared === true) return found;
    }
    return undefined;
  }

  async #save(template: Template): Promise<Template> {
    // Wrong ones would fail each of its spawns.
    new HostRules(template.allowedHosts, this.#groups);
    byVariable(template.secrets, ({ name, injectAt }) => injectAt || name);
    const placed = layOut(checkVolumes(template.volumes ?? []), template.spareSlots);
    if (placed !== undefined && template.poolSize > 0) {
      throw new StacyError("invalid", "pool_size: machines with volumes, or places for them, are not kept ready", {
        remedy: "leave out one of them",
      });
    }
    const taken = template.shared === true ? this.#shared(template.name) : undefined;
    if (taken !== undefined && taken.owner !== template.owner) {
      throw new StacyError("conflict", `another owner shares a template ${template.name} already`);
    }
    const { name, version, owner } = template;
    await this.#store.putTemplate(template);
    this.#of(owner).set(name, template);
    this.#events.emit("template.saved", undefined, { name, version }, owner);
    this.#changed();
    return template;
  }
}

/** A figure and a table are shown once: much of both libraries is imported only then, and a clone's first cell would wait for it. */
const WARM_PYTHON = `import numpy, pandas, matplotlib.pyplot
matplotlib.pyplot.plot([0, 1])
display(pandas.DataFrame({"a": [1]}))`;

/** In no list, and nobody's: one of the same name takes its place. */
const BUILT_IN: Readonly<Record<string, Template>> = Object.fromEntries(
  [
    { name: "base", image: "stacyvm/base", description: "A system with the user `user`, bash, Python, git and curl." },
    {
      name: "code-interpreter",
      image: "stacyvm/code-interpreter",
      description:
        "The same with Python's libraries for data, and Node; saved with a context of each, the first of which has imported them.",
      memoryMiB: 1024,
      contexts: [
        { language: "python" as const, code: WARM_PYTHON },
        { language: "javascript" as const, code: "" },
      ],
    },
  ].map((template) => [
    template.name,
    {
      ...{ owner: "", version: 1, setup: [], allowedHosts: [], memoryMiB: 512, vcpus: 1, ttlMs: 300_000, env: {} },
      ...{ secrets: [], poolSize: 0, metadata: {}, createdAt: 0, updatedAt: 0 },
      ...template,
    },
  ]),
);

export const builtInTemplates: readonly Template[] = Object.values(BUILT_IN);

function unknown(name: string): StacyError {
  return new StacyError("not-found", `there is no template ${JSON.stringify(name)}`);
}
