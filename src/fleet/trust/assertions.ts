/**
 * What one node says of a request that it passes on to another: who calls, which sandbox is meant, from where it came. It is signed with
 * the fleet's secret, over all that the request is (method, path, headers) and over who it is for, is good for a moment, and once. Bodies
 * are not signed: they are streams, and the connection's own protection (TLS) is theirs.
 *
 *     X-Stacyvm-Node: BASE64URL(JSON of the claim) "." BASE64URL(HMAC-SHA256)
 */
import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { StacyError } from "../../host/error.ts";

const WhoSchema = z.strictObject({
  name: z.string(),
  owner: z.string(),
  scopes: z.array(z.enum(["read", "use", "admin"])),
  hosts: z.array(z.string()).optional(),
  keyId: z.string().optional(),
  credential: z.strictObject({ id: z.string(), bound: z.string() }),
  /** The request's header that had the key: it is for us, and for no program behind us. */
  header: z.string().optional(),
});

/** Somebody who was identified; what only the node that has the key can say (whether it still holds) is not in it. */
export type Who = z.infer<typeof WhoSchema>;

const ClaimSchema = z.strictObject({
  from: z.string(),
  to: z.string(),
  /** ms since 1970, as the clock of `from` has it */
  at: z.number(),
  nonce: z.string(),
  /** Of the client. */
  address: z.string(),
  /** Id of the one that is meant; absent: the request is about none, or about a new one. */
  sandbox: z.string().optional(),
  /** By a key or a token of an issuer. */
  caller: WhoSchema.optional(),
  /** Behind the sandbox's own token, which opens that sandbox and nothing else. */
  proved: WhoSchema.optional(),
  /** It is about what this node has, and no question to the whole fleet. */
  local: z.boolean().optional(),
  /** The node asks for itself (between.ts): nothing that a client has sent is in it, whatever its path. */
  own: z.literal(true).optional(),
});

export type Claim = z.infer<typeof ClaimSchema>;
export type NewClaim = Omit<Claim, "from" | "at" | "nonce">;

/** The request as it is sent. */
export interface Sealed {
  method: string;
  path: string;
  /** Names and values in turn, without what the connection adds. */
  headers: readonly string[];
}

/** A claim is good for so long, and clocks of nodes may differ by as much, ms. */
export const GOOD_MS = 30_000;

export class Assertions {
  readonly #key: Buffer;
  readonly #self: string;
  readonly #now: () => number;
  /** Seen within the last two spans, by their nonces. */
  #seen = new Set<string>();
  #before = new Set<string>();
  #turned: number;

  /** @param self the id of this node */
  constructor(secret: string, self: string, now: () => number = Date.now) {
    this.#key = derived(secret, "requests between nodes");
    this.#self = self;
    this.#now = now;
    this.#turned = now();
  }

  sign(claim: NewClaim, sealed: Sealed): string {
    const whole: Claim = { ...claim, from: this.#self, at: this.#now(), nonce: randomBytes(12).toString("base64url") };
    const text = Buffer.from(JSON.stringify(whole)).toString("base64url");
    return `${text}.${this.#mac(text, sealed).toString("base64url")}`;
  }

  /** @throws StacyError `permission` for whatever is not exactly what a node of this fleet has sent to this one just now */
  verify(header: string, sealed: Sealed): Claim {
    const [text = "", mac = "", ...rest] = header.split(".");
    const given = Buffer.from(mac, "base64url");
    const right = this.#mac(text, sealed);
    if (rest.length > 0 || given.length !== right.length || !timingSafeEqual(given, right)) {
      throw refused("its signature is wrong", "give all nodes the same fleet.secret");
    }
    const parsed = ClaimSchema.safeParse(JSON.parse(Buffer.from(text, "base64url").toString("utf8")));
    if (!parsed.success) throw refused("it says what this version does not know", "run one version on all nodes");
    const claim = parsed.data;
    if (claim.to !== this.#self) throw refused("it is for another node");
    const now = this.#now();
    if (Math.abs(now - claim.at) > GOOD_MS) {
      throw refused(
        `it was sent ${Math.round((now - claim.at) / 1000)} s ago by the sender's clock`,
        "set the nodes' clocks (NTP)",
      );
    }
    this.#once(claim.nonce, now);
    return claim;
  }

  #once(nonce: string, now: number): void {
    // Whatever was seen longer ago than two spans is refused for its time.
    if (now - this.#turned > 2 * GOOD_MS) {
      this.#before = now - this.#turned > 4 * GOOD_MS ? new Set() : this.#seen;
      this.#seen = new Set();
      this.#turned = now;
    }
    if (this.#seen.has(nonce) || this.#before.has(nonce)) throw refused("it was seen already");
    this.#seen.add(nonce);
  }

  #mac(text: string, { method, path, headers }: Sealed): Buffer {
    return createHmac("sha256", this.#key)
      .update(JSON.stringify([text, method, path, headers]))
      .digest();
  }
}

/** Of the fleet's secret, for one purpose. */
export function derived(secret: string, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, "stacyvm fleet", purpose, 32));
}

function refused(why: string, remedy?: string): StacyError {
  return new StacyError("permission", `this request is not from a node of this fleet: ${why}`, {
    phase: "fleet",
    ...(remedy === undefined ? {} : { remedy }),
  });
}
