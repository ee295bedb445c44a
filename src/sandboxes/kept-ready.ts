/**
 * What templates keep ready. `pool_size` is a wish: a machine that waits is counted by no owner's quota of sandboxes, so all wishes together
 * have one bound, and owners take of it in turn, one machine each, until it is used up or nobody wishes for more. What one owner wishes for
 * leaves the others their share, and an owner alone may have all of it.
 */
import type { SandboxSpec } from "../providers/provider.ts";
import { effectiveMax, type Limits } from "./limits.ts";
import type { Log } from "./observer.ts";
import type { Providers } from "./providers.ts";
import type { Quotas } from "./quotas.ts";
import type { Template } from "./record.ts";
import { templateSpec } from "./resolve.ts";

export interface Wish {
  /** Of the template, its owner's included. */
  name: string;
  owner: string;
  machines: number;
}

/**
 * @param most of one owner, of all its templates
 * @returns by the wishes' names; what is not there has none
 */
export function shareOut(wishes: readonly Wish[], total: number, most: (owner: string) => number): Map<string, number> {
  const given = new Map<string, number>();
  const owners = [...Map.groupBy(wishes, ({ owner }) => owner)].map(([owner, own]) => ({ own, left: most(owner) }));
  let left = total;
  let taking = owners;
  while (left > 0 && taking.length > 0) {
    taking = taking.filter((each) => {
      if (left === 0 || each.left === 0) return false;
      // Its templates are in turn, too: the one that has the smallest part of what it wishes for.
      const open = each.own.filter(({ name, machines }) => (given.get(name) ?? 0) < machines);
      const [next] = open.sort((a, b) => (given.get(a.name) ?? 0) - (given.get(b.name) ?? 0));
      if (next === undefined) return false;
      given.set(next.name, (given.get(next.name) ?? 0) + 1);
      each.left -= 1;
      left -= 1;
      return true;
    });
  }
  return given;
}

export interface KeptReadyParts {
  providers: Pick<Providers, "pin">;
  quotas: Pick<Quotas, "effective">;
  limits: Limits;
  log: Log;
  /** All owners'. */
  templates(): Template[];
}

export class KeptReady {
  readonly #parts: KeptReadyParts;
  /** What the pools were told last, by the name of the template. */
  readonly #told = new Map<string, { template: Template; machines: number }>();

  constructor(parts: KeptReadyParts) {
    this.#parts = parts;
  }

  /** After any change of templates and quotas: tells the pools what is another number, or another template, than before. */
  update(): void {
    const { limits, templates } = this.#parts;
    const wanted = new Map(
      templates()
        .filter(({ poolSize }) => poolSize > 0)
        .sort((a, b) => a.createdAt - b.createdAt)
        .flatMap((template) => {
          const spec = this.#specOf(template);
          return spec === undefined ? [] : [[nameOf(template), { template, spec }] as const];
        }),
    );
    const wishes = [...wanted].map(([name, { template }]) => ({
      ...{ name, owner: template.owner, machines: template.poolSize },
    }));
    const given = shareOut(wishes, limits.maxKeptReady, (owner) => this.#mostOf(owner));
    for (const [name, { template }] of this.#told) {
      if (!wanted.has(name)) this.#tell(name, template, 0);
    }
    for (const [name, { template, spec }] of wanted) {
      const machines = given.get(name) ?? 0;
      const told = this.#told.get(name);
      if (told?.template !== template || told.machines !== machines) this.#tell(name, template, machines, spec);
    }
  }

  #tell(name: string, template: Template, machines: number, spec = this.#specOf(template)): void {
    const before = this.#told.get(name);
    if (machines === 0) this.#told.delete(name);
    else this.#told.set(name, { template, machines });
    if (spec === undefined || (machines === 0 && before === undefined)) return;
    this.#parts.providers.pin(name, template.provider, spec, machines);
  }

  /** No more than it may have sandboxes. */
  #mostOf(owner: string): number {
    const { quotas, limits } = this.#parts;
    const { maxSandboxesOfAll } = quotas.effective(owner, undefined);
    return effectiveMax(limits.maxSandboxes, maxSandboxesOfAll) || Number.POSITIVE_INFINITY;
  }

  #specOf(template: Template): Omit<SandboxSpec, "id" | "checkpoint"> | undefined {
    try {
      return templateSpec(template, this.#parts.limits);
    } catch (error) {
      // Saved by an earlier version that did not look, or over a limit that came later: its spawns say so.
      this.#parts.log.warn({ template: template.name, err: error }, "the template cannot be kept ready");
      return undefined;
    }
  }
}

/** Names are each owner's own. */
function nameOf({ owner, name }: Template): string {
  return `${owner}/${name}`;
}
