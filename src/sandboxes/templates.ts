/** Templates: kept in memory, written through to the database, and applied: a pool per template, set-up in the golden machine. */
import { HostRules } from "../egress/host-rules.ts";
import { StacyError } from "../host/error.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Template } from "./record.ts";
import type { Store } from "./store.ts";

/** What a person can read and type, without white space at its ends. */
export const TEMPLATE_NAME = /^(?=[^\s\p{C}])[^\p{C}\p{Zl}\p{Zp}]{1,128}(?<!\s)$/u;

export type TemplateInput = Omit<Template, "createdAt" | "updatedAt" | "version"> & { version?: number };

export class Templates {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #byName: Map<string, Template>;
  /** Names that are being written. */
  readonly #creating = new Set<string>();
  readonly #changed: (template: Template, before: Template | undefined) => void;

  /** @param changed is told after each change, with `poolSize: 0` when one was removed */
  constructor(
    parts: { store: Store; clock: Clock; events: Events },
    changed: (template: Template, before: Template | undefined) => void,
  ) {
    this.#store = parts.store;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#changed = changed;
    this.#byName = new Map(this.#store.templates().map((template) => [template.name, template]));
  }

  list(): Template[] {
    return [...this.#byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws StacyError `not-found` */
  get(name: string): Template {
    const found = this.#byName.get(name);
    if (found === undefined) throw new StacyError("not-found", `there is no template ${JSON.stringify(name)}`);
    return found;
  }

  /** @throws StacyError `conflict` when there is one of that name */
  async create(input: TemplateInput): Promise<Template> {
    if (this.#byName.has(input.name) || this.#creating.has(input.name)) {
      throw new StacyError("conflict", `the template ${input.name} exists already`, {
        remedy: `choose another name, or replace it: PUT /api/v1/templates/${input.name}, \`template create --replace\``,
      });
    }
    const now = this.#clock.now();
    return this.#save({ ...input, version: input.version ?? 1, createdAt: now, updatedAt: now }, undefined);
  }

  /** @throws StacyError `not-found` */
  async replace(name: string, input: TemplateInput): Promise<Template> {
    const before = this.get(name);
    const next = {
      ...input,
      name,
      version: input.version ?? before.version + 1,
      createdAt: before.createdAt,
      updatedAt: this.#clock.now(),
    };
    return this.#save(next, before);
  }

  /** @throws StacyError `not-found` */
  async remove(name: string): Promise<void> {
    const before = this.get(name);
    await this.#store.deleteTemplate(name);
    this.#byName.delete(name);
    this.#events.emit("template.deleted", undefined, { name });
    this.#changed({ ...before, poolSize: 0 }, before);
  }

  async #save(template: Template, before: Template | undefined): Promise<Template> {
    new HostRules(template.allowedHosts); // a wrong one would fail each of its spawns
    this.#creating.add(template.name); // a second one of the same name meets it
    try {
      await this.#store.putTemplate(template);
    } finally {
      this.#creating.delete(template.name);
    }
    this.#byName.set(template.name, template);
    this.#events.emit("template.saved", undefined, { name: template.name, version: template.version });
    this.#changed(template, before);
    return template;
  }
}
