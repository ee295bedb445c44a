/**
 * What an owner's sandboxes may be made of: rules of that owner, beside the server's own for all (images.allow, images.deny). They
 * are asked in order, the lowest priority first and a denial before a permission; the first that matches decides, and what none
 * matches may be used.
 */
import { randomBytes } from "node:crypto";
import { z } from "zod";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import { followAliases, matchesPattern } from "../images/policy.ts";
import { DEFAULT_REGISTRY, isDigest, parseReference } from "../images/reference.ts";
import { isTemplateImage } from "../images/template-images.ts";
import type { Store } from "./store.ts";

const POLICY = z.object({
  id: z.string(),
  owner: z.string(),
  resource: z.enum(["image", "provider"]),
  effect: z.enum(["allow", "deny"]),
  /** `*` matches anything but `/`, `**` anything. */
  pattern: z.string(),
  priority: z.number(),
  /** ms since 1970 */
  createdAt: z.number(),
});
export type Policy = z.infer<typeof POLICY>;

const KIND = "policy";
/** Of an owner: each is asked at each spawn. */
const MAX_POLICIES = 100;

export class Policies {
  readonly #store: Store;
  readonly #aliases: Readonly<Record<string, string>>;
  readonly #byOwner = new Map<string, Policy[]>();
  /** Each change looks first, and what it saw has to hold until it is written. */
  readonly #changes = new SerialQueue();

  /** @param aliases of images, as in the configuration */
  constructor(store: Store, aliases: Readonly<Record<string, string>>) {
    this.#store = store;
    this.#aliases = aliases;
    for (const policy of store.documents(KIND, POLICY)) this.#take(policy);
  }

  /** In the order in which they are asked. */
  list(owner: string): Policy[] {
    return [...(this.#byOwner.get(owner) ?? [])];
  }

  /** @throws StacyError `invalid`, `limit` */
  create(input: Omit<Policy, "id">): Promise<Policy> {
    return this.#changes.run(async () => {
      if (/[?[\]\\]/.test(input.pattern)) {
        throw new StacyError("invalid", "pattern: only * and ** stand for something else than themselves");
      }
      if (this.list(input.owner).length >= MAX_POLICIES) {
        throw new StacyError("limit", `the owner has ${MAX_POLICIES} policies already`);
      }
      const policy = { ...input, id: this.#freshId() };
      await this.#store.putDocument(KIND, policy);
      this.#take(policy);
      return policy;
    });
  }

  #freshId(): string {
    const taken = new Set([...this.#byOwner.values()].flat().map(({ id }) => id));
    for (;;) {
      const id = `pol-${randomBytes(4).toString("hex")}`;
      if (!taken.has(id)) return id;
    }
  }

  /** @throws StacyError `not-found` */
  remove(owner: string, id: string): Promise<void> {
    return this.#changes.run(async () => {
      const all = this.list(owner);
      if (!all.some((policy) => policy.id === id)) {
        throw new StacyError("not-found", `there is no policy ${JSON.stringify(id.slice(0, 64))}`);
      }
      await this.#store.deleteDocument(KIND, id);
      this.#byOwner.set(
        owner,
        all.filter((policy) => policy.id !== id),
      );
    });
  }

  /** @throws StacyError `permission` */
  checkImage(owner: string, image: string): void {
    if (isTemplateImage(image)) return; // what it is made of was asked about
    const rules = this.#of(owner, "image");
    if (rules.length === 0) return;
    const names = namesOf(image, this.#aliases);
    const first = rules.find(({ pattern }) => names.some((name) => matchesPattern(pattern, name)));
    // A digest has no name that a rule could be about: one of the owner's rules has to let it through by itself.
    const refused = first === undefined ? /(^|@)sha256:/.test(image) : first.effect === "deny";
    if (refused) throw refusal("image", image);
  }

  /** @param names that the client used, and its own. @throws StacyError `permission` */
  checkProvider(owner: string, names: readonly string[]): void {
    const first = this.#of(owner, "provider").find(({ pattern }) =>
      names.some((name) => matchesPattern(pattern, name)),
    );
    if (first?.effect === "deny") throw refusal("provider", names[0] ?? "");
  }

  #of(owner: string, resource: Policy["resource"]): Policy[] {
    return (this.#byOwner.get(owner) ?? []).filter((policy) => policy.resource === resource);
  }

  #take(policy: Policy): void {
    const all = [...(this.#byOwner.get(policy.owner) ?? []), policy];
    const rank = ({ effect }: Policy): number => (effect === "deny" ? 0 : 1);
    all.sort((a, b) => a.priority - b.priority || rank(a) - rank(b) || a.createdAt - b.createdAt);
    this.#byOwner.set(policy.owner, all);
  }
}

/** All that people call an image: as it was written, in full, and in the short forms; and what an alias of it stands for. */
function namesOf(image: string, aliases: Readonly<Record<string, string>>): string[] {
  if (isDigest(image)) return [image];
  const full = (name: string): string => (isDigest(name) ? name : parseReference(name).full);
  const names = new Set([image]);
  for (const name of [full(image), followAliases(aliases, image, full)]) {
    const short = name.startsWith(`${DEFAULT_REGISTRY}/`) ? name.slice(DEFAULT_REGISTRY.length + 1) : name;
    for (const each of [name, short, short.replace(/^library\//, "")])
      names.add(each).add(each.replace(/:latest$/, ""));
  }
  return [...names];
}

function refusal(what: string, name: string): StacyError {
  return new StacyError("permission", `the ${what} ${name} is not permitted by a policy of this owner`, {
    phase: "admission",
    remedy: "ask the administrator: GET /api/v1/admin/tenants/OWNER/policies shows the owner's rules",
  });
}
