/**
 * From what a request presents to who it is from: configured keys, keys that this server made, the local one that commands of
 * its own user find, tokens of an issuer; and, where no key is configured, the user who runs the other end of the connection.
 */
import type { Socket } from "node:net";
import { StacyError } from "../host/error.ts";
import { isGuests } from "../host/guest-sockets.ts";
import { peerUid } from "../host/peer-uid.ts";
import { DEFAULT_OWNER } from "../sandboxes/owner.ts";
import { Buckets } from "./buckets.ts";
import { type Identity, type Scope, scopesUpTo } from "./identity.ts";
import type { KeyRecord, Keys } from "./keys.ts";
import { configuredHash, hashOf, isWeak, ownForm } from "./secret.ts";
import { Tokens } from "./tokens.ts";

export interface ConfiguredKey {
  name: string;
  /** Plain, or `sha256:` and the hash in hex. */
  key: string;
  scopes: readonly Scope[];
  owner?: string | undefined;
  allowed_hosts?: readonly string[] | undefined;
  /** Of commands of the server's own user. */
  local?: true;
}

export interface AccessOptions {
  configured: readonly ConfiguredKey[];
  keys: Keys;
  tokens?: Tokens;
  /** Programs of the server's own user (and root's) need no key. */
  ownUser: boolean;
  /** Is told of wrong keys as long as they are answered, so that nobody fills a log with them. @param left how many more */
  wrongKey?: (address: string, left: number) => void;
  /** Default: what the kernel says of the connection. */
  peer?: (socket: Socket) => Promise<number | undefined>;
}

/** Wrong keys from one address: as many at once, then one every two seconds. */
const WRONG = { burst: 30, perMinute: 30 };

export class Access {
  readonly keys: Keys;
  readonly ownUser: boolean;
  readonly #configured = new Map<string, { identity: Identity; weak: boolean }>();
  readonly #tokens: Tokens | undefined;
  readonly #peer: (socket: Socket) => Promise<number | undefined>;
  readonly #uids = new WeakMap<Socket, Promise<number | undefined>>();
  readonly #wrong = new Buckets(WRONG);
  readonly #wrongKey: (address: string, left: number) => void;

  constructor(options: AccessOptions) {
    this.keys = options.keys;
    this.ownUser = options.ownUser;
    this.#tokens = options.tokens;
    this.#peer = options.peer ?? peerUid;
    this.#wrongKey = options.wrongKey ?? (() => {});
    for (const { name, key, scopes, owner, allowed_hosts: hosts, local } of options.configured) {
      const limit = hosts === undefined ? {} : { hosts };
      const whose = owner ?? DEFAULT_OWNER;
      const hash = configuredHash(key);
      const credential = { id: `set-${hashOf(JSON.stringify([whose, name])).slice(0, 16)}`, bound: hash };
      const identity = {
        name,
        owner: whose,
        scopes: scopesUpTo(scopes),
        credential,
        ...limit,
        ...(local && { local }),
      };
      this.#configured.set(hash, { identity, weak: isWeak(key) });
    }
  }

  /**
   * Who presents this key or token. Guessing is slowed down: an address that has presented too many wrong ones is not heard
   * about keys that could be guessed.
   * @param address of the caller
   * @returns `undefined` when it is nobody's
   * @throws StacyError `limit`; `permission` and `unavailable` for tokens
   */
  async identify(presented: string, address: string): Promise<Identity | undefined> {
    const secret = ownForm(presented);
    const hash = hashOf(secret);
    const configured = this.#configured.get(hash);
    const guessing = this.#wrong.level(address) < 1;
    if (configured !== undefined && !(configured.weak && guessing)) return configured.identity;
    const made = this.keys.find(hash);
    if (made !== undefined) return this.#ofMade(made, hash);
    // Nobody guesses a signature.
    if (this.#tokens !== undefined && Tokens.looksLikeOne(secret)) {
      const identity = await this.#tokens.identify(secret);
      if (identity !== undefined) return identity;
    }
    const { taken, left, waitMs } = this.#wrong.take(address);
    if (taken) {
      this.#wrongKey(address, left);
      return undefined;
    }
    throw new StacyError("limit", "too many wrong keys came from this address", {
      phase: "auth",
      remedy: `try again in ${Math.ceil(waitMs / 1000)} s`,
    });
  }

  /**
   * The server's own user, or root, at the other end of a connection on this host; asked once per connection.
   * @throws StacyError `permission` with what to do
   */
  async identifyUser(socket: Socket | undefined): Promise<Identity> {
    if (socket !== undefined && isGuests(socket)) {
      throw new StacyError("permission", "without a key this server does not answer programs of its sandboxes", {
        phase: "auth",
        remedy: "give the program a key (`stacyvm key create`), which it sends as X-API-Key",
      });
    }
    const own = process.getuid?.();
    const uid = socket === undefined ? undefined : await this.#uidOf(socket);
    if (uid !== undefined && (uid === own || uid === 0)) {
      return ofUser(uid === own ? "own user" : "root");
    }
    const who = uid === undefined ? "whoever this is" : `the user with uid ${uid}`;
    throw new StacyError("permission", `without a key this server answers its own user (uid ${own}) only, not ${who}`, {
      phase: "auth",
      remedy: "ask that user for a key (`stacyvm key create`), and send it as X-API-Key",
    });
  }

  /**
   * Who is behind a credential now: nobody when its key is revoked, has expired or is configured no more; two secrets of one key that is
   * being rotated. Who an issuer's token was for stands in its credential; it is good until that token has expired.
   */
  behind(id: string): Identity[] {
    const token = this.#tokens?.behind(id);
    if (token !== undefined) return [token];
    // Asked with each request to a sandbox: there may be very many keys.
    const made = this.#made(this.keys.goodOf(id));
    return made.length > 0 ? made : this.#unmade().filter(({ credential }) => credential.id === id);
  }

  /** Everybody with a key that is good now, and the own user where that needs none. */
  holders(): Identity[] {
    return [...this.#unmade(), ...this.#made(this.keys.good())];
  }

  /** With a configured key, or none. */
  #unmade(): Identity[] {
    const configured = [...this.#configured.values()].map(({ identity }) => identity);
    return this.ownUser ? [...configured, ofUser("own user")] : configured;
  }

  #made(good: [hash: string, record: KeyRecord][]): Identity[] {
    return good.map(([hash, record]) => this.#ofMade(record, hash));
  }

  #ofMade({ id, name, owner, scopes, allowedHosts }: KeyRecord, hash: string): Identity {
    const limit = allowedHosts === undefined ? {} : { hosts: allowedHosts };
    const credential = { id, bound: hash };
    const holds = (): boolean => this.keys.holds(hash);
    return { name, owner, scopes: scopesUpTo(scopes), keyId: id, credential, holds, ...limit };
  }

  async #uidOf(socket: Socket): Promise<number | undefined> {
    const asked = this.#uids.get(socket) ?? this.#peer(socket).catch(() => undefined);
    this.#uids.set(socket, asked);
    const uid = await asked;
    // A look that found nothing (no file descriptor was free, say) says nothing about the next one.
    if (uid === undefined) this.#uids.delete(socket);
    return uid;
  }
}

/** Of the user at the other end of a connection, on a server that asks for no key. */
function ofUser(name: string): Identity {
  const credential = { id: "user", bound: "user" };
  return { name, owner: DEFAULT_OWNER, scopes: scopesUpTo(["admin"]), credential };
}
