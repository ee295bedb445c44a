/**
 * A guest's way out. It has no network card: its agent hands us the connections that programs open, to any address (transparent.ts)
 * or to a loopback port with an HTTP proxy of ours behind it (proxy.ts), and what they send without one (datagrams.ts). We connect
 * to what the sandbox's rules permit. So no packet of a guest ever reaches the host's network, and nothing of this is in a snapshot.
 */
import type { Socket as DatagramSocket } from "node:dgram";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { Addresses } from "../host/addresses.ts";
import { DATAGRAM_BOUNDS } from "../host/bounds.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { ping } from "../host/ping.ts";
import { Connections, type Permit, type Target } from "./connections.ts";
import { Datagrams } from "./datagrams.ts";
import { addressForEcho, assertPermitted, dial, dialDatagrams, type Judge, type Reach, refusal } from "./dial.ts";
import { Echoes } from "./echo.ts";
import { Flows } from "./flows.ts";
import { type HostRules, OWN_HOST, type Protocol } from "./host-rules.ts";
import { Meter, NO_LIMITS, type Traffic, type TrafficLimits } from "./meter.ts";
import { NameServer } from "./name-server.ts";
import { Names } from "./names.ts";
import { EgressProxy } from "./proxy.ts";
import type { Resolve } from "./resolver.ts";
import type { Authority } from "./secrets/authority.ts";
import { Broker } from "./secrets/broker.ts";
import type { KeptSecret } from "./secrets/secret.ts";
import { type Closing, Share, untilClosed } from "./share.ts";
import { DNS_PORT, type Intercepted, Transparent } from "./transparent.ts";

/** Where the proxy is in the guest, on its loopback address. */
export const PROXY_PORT = 3128;
const PROXY_URL = `http://127.0.0.1:${PROXY_PORT}`;

/** Programs look for either spelling; Node's own `fetch` has to be told to look. */
export const PROXY_ENVIRONMENT: Readonly<Record<string, string>> = {
  http_proxy: PROXY_URL,
  https_proxy: PROXY_URL,
  HTTP_PROXY: PROXY_URL,
  HTTPS_PROXY: PROXY_URL,
  no_proxy: "localhost,127.0.0.1,::1",
  NO_PROXY: "localhost,127.0.0.1,::1",
  NODE_USE_ENV_PROXY: "1",
};

/** The environment of a sandbox with these hosts; what its owner has set stays. */
export function networkEnvironment(hosts: readonly string[], env: Record<string, string>): Record<string, string> {
  return hosts.length === 0 ? env : { ...PROXY_ENVIRONMENT, ...env };
}

/** What is asked of a guest's agent: its next connection to a port, its next one to any address, its datagrams. */
export interface GuestSide {
  accept(port: number, options: { signal: AbortSignal }): Promise<Duplex>;
  intercept(options: { signal: AbortSignal }): Promise<Intercepted>;
  datagrams(options: { signal: AbortSignal }): Promise<Duplex>;
}

export interface Refused extends Target {
  reason: string;
}

/** What all sandboxes share: their counts, and their connections to hosts, each of which is an open file of this process. */
export interface SharedEgress {
  readonly counts: Counts;
  readonly traffic: Traffic;
  open: number;
  readonly mostOpen: number;
  /** Processes that ask a host for an echo, now. */
  pings: number;
}

/** Connections to hosts: that came about, that the rules refused, that failed otherwise. */
export interface Counts {
  connected: number;
  refused: number;
  failed: number;
}

/** Counts since it was made, `sent` and `received` in bytes. */
export interface EgressStatus extends Counts, Traffic {
  /** Connections of the guest's programs, and flows of their datagrams, now. */
  open: number;
  /** Why this guest gets no network although its rules are not empty. */
  problem?: string;
}

/** What a sandbox's programs may use and not have (secrets/). */
export interface EgressSecrets {
  authority: Authority;
  /** `undefined`: nobody knows yet. */
  list(): readonly KeptSecret[] | undefined;
  /** Certificates of authorities, PEM; empty: those that Node knows. */
  trusted: readonly string[];
}

export interface EgressOptions {
  rules: HostRules;
  ceiling: HostRules;
  addresses: Addresses;
  resolve: Resolve;
  maxConnections: number;
  /** Default: none. */
  limits?: TrafficLimits;
  /** A connection over which nothing went for so long is closed. */
  idleMs: number;
  shared?: SharedEgress;
  guest: GuestSide;
  secrets?: EgressSecrets;
  /** Whether an address answers ICMP echo. Default: this host's own `ping`. */
  ping?: (address: string) => Promise<boolean>;
  refused(refused: Refused): void;
}

/** Of each way out, where the limit leaves room for it. */
const WAITING = 4;
/** A channel that broke is opened again by the next call; between attempts these are the pauses, ms. */
const RETRY_MS = { first: 250, most: 10_000 };
/** Errors after which no attempt will do better: the guest is gone, or is none that can do this. */
const FINAL = new Set<StacyError["code"]>(["not-found", "not-supported"]);
const TELL_AGAIN_MS = 60_000;
const TOLD_MOST = 256;

export class Egress {
  readonly #options: EgressOptions;
  readonly #connections = new Connections();
  readonly #proxy: EgressProxy;
  readonly #transparent: Transparent;
  readonly #datagrams: Datagrams;
  readonly #flows: Flows;
  readonly #echoes: Echoes;
  readonly #broker: Broker;
  /** Hosts that are being asked for an echo. */
  #pings = 0;
  readonly #meter: Meter;
  readonly #counts: Counts = { connected: 0, refused: 0, failed: 0 };
  readonly #told = new Map<string, number>();
  #rules: HostRules;
  /** Between `start` and `stop`. */
  #started = false;
  /** Set while connections are taken: started, and with rules. */
  #taking: AbortController | undefined;
  /** Why one of the ways out does not work, by its name. */
  readonly #problems = new Map<string, string>();
  /** Connections that are waited for. */
  #places = 0;
  /**
   * Connections to hosts, of programs and the broker's, twice as many as programs may have themselves: a guest that leaves does not end
   * what is being dialled for it, and one connection of the guest may have many requests, each of which may be a connection to a host.
   */
  readonly #dialled: Share;
  readonly #brokered: Share;
  #freed = Promise.withResolvers<void>();

  constructor(options: EgressOptions) {
    this.#options = options;
    this.#rules = options.rules;
    this.#meter = new Meter(options.limits ?? NO_LIMITS, options.shared?.traffic);
    const { secrets } = options;
    this.#dialled = new Share(2 * this.#most, "hosts");
    this.#brokered = new Share(2 * options.maxConnections, "hosts of secrets");
    this.#broker = new Broker({
      authority: secrets?.authority,
      secrets: () => secrets?.list(),
      trusted: secrets?.trusted ?? [],
      meter: this.#meter,
      idleMs: options.idleMs,
      dial: async (target) => {
        try {
          const socket = await this.#dial(target, this.#brokered);
          this.#tell(target, undefined);
          return socket;
        } catch (thrown) {
          this.#tell(target, asStacyError(thrown));
          throw thrown;
        }
      },
    });
    const ways = {
      connections: this.#connections,
      meter: this.#meter,
      broker: this.#broker,
      assertPermitted: ({ host, port }: Target) => assertPermitted(host, { port, protocol: "tcp" }, this.#judges),
      dial: (target: Target) => this.#dial(target, this.#dialled),
      tell: (target: Target, failure?: StacyError) => this.#tell(target, failure),
    };
    const names = new Names();
    this.#proxy = new EgressProxy(ways);
    const nameServer = new NameServer({
      names,
      permit: (name) => this.#permitName(name),
      resolve: async (name) => name === OWN_HOST || this.#lookUp(name),
    });
    this.#transparent = new Transparent({ ...ways, names, nameServer });
    this.#flows = new Flows({ ...ways, most: options.maxConnections, dial: (target) => this.#dialDatagrams(target) });
    this.#echoes = new Echoes({
      find: (host) => addressForEcho(host, this.#reach),
      ping: (address) => this.#ping(address),
      tell: ways.tell,
    });
    this.#datagrams = new Datagrams({ names, nameServer, flows: this.#flows, echoes: this.#echoes });
  }

  get status(): EgressStatus {
    const status = { open: this.#connections.open + this.#flows.open, ...this.#counts, ...this.#meter.traffic };
    const [problem] = this.#problems.values();
    return problem === undefined ? status : { ...status, problem };
  }

  /** Takes the guest's connections from now on, as long as there are rules. Idempotent. */
  start(): void {
    this.#started = true;
    this.#adjust();
  }

  /** Takes no more, and cuts what is open. It can be started again. */
  stop(): void {
    this.#started = false;
    this.#adjust();
  }

  /** Other rules from now on, also for what is open. */
  allow(rules: HostRules): void {
    this.#rules = rules;
    this.#told.clear();
    const permits =
      (protocol: Protocol): Permit =>
      ({ host, port }, address) =>
        rules.permit(host, port, protocol) &&
        (address === undefined || rules.refusal(address, port, protocol) === undefined);
    for (const each of [this.#connections, this.#broker]) each.cut(permits("tcp"));
    this.#flows.cut(permits("udp"));
    this.#echoes.forget();
    this.#adjust();
  }

  /** The secrets are others now: what is open to hosts that have none any more is cut. */
  secretsChanged(): void {
    this.#broker.cut(() => true);
  }

  #adjust(): void {
    const wanted = this.#started && !this.#rules.empty;
    if (wanted === (this.#taking !== undefined)) return;
    if (wanted) {
      const { guest } = this.#options;
      this.#taking = new AbortController();
      const { signal } = this.#taking;
      const serving = (connection: Duplex, serve: () => void) => ({
        connection,
        serve: (): void => {
          // One that was over before it was ours says so no more.
          if (connection.closed) this.#free();
          else {
            this.#connections.take(connection, () => this.#free());
            serve();
          }
        },
      });
      for (let i = 0; i < this.#waiting; i++) {
        void this.#take("proxy", signal, async () => {
          const connection = await this.#place(() => guest.accept(PROXY_PORT, { signal }));
          return serving(connection, () => this.#proxy.serve(connection));
        });
        void this.#take("connections", signal, async () => {
          const intercepted = await this.#place(() => guest.intercept({ signal }));
          return serving(intercepted.connection, () => this.#transparent.serve(intercepted));
        });
      }
      void this.#take("datagrams", signal, async () => {
        const connection = await guest.datagrams({ signal });
        return { connection, serve: () => this.#datagrams.serve(connection) };
      });
    } else {
      this.#taking?.abort();
      this.#taking = undefined;
      this.#connections.close();
      this.#broker.close();
      this.#flows.close();
    }
  }

  /** Takes what the guest hands over, one after the other, for as long as it makes sense to. */
  async #take(
    way: string,
    signal: AbortSignal,
    next: () => Promise<{ connection: Duplex; serve(): void | Promise<void> }>,
  ): Promise<void> {
    let pause = RETRY_MS.first;
    while (!signal.aborted) {
      try {
        const { connection, serve } = await next();
        pause = RETRY_MS.first;
        this.#problems.delete(way);
        if (signal.aborted) connection.destroy();
        else await serve();
      } catch (thrown) {
        this.#free();
        if (signal.aborted) return;
        const { code, message } = asStacyError(thrown);
        this.#problems.set(way, message);
        if (FINAL.has(code)) return;
        await delay(pause, undefined, { signal, ref: false }).catch(() => {});
        pause = Math.min(2 * pause, RETRY_MS.most);
      }
    }
  }

  async #dial({ host, port }: Target, share: Share): Promise<Socket> {
    const socket = await share.take(() => this.#counted(() => dial(host, port, this.#reach)));
    const { idleMs } = this.#options;
    socket.setTimeout(idleMs, () => socket.destroy());
    return socket;
  }

  async #dialDatagrams({ host, port }: Target): Promise<DatagramSocket> {
    return this.#counted(() => dialDatagrams(host, port, this.#reach));
  }

  /** Within the limits of what is open, and of what is opened in a minute. */
  async #counted<T extends Closing>(open: () => Promise<T>): Promise<T> {
    const free = this.#takeAmongAll();
    return untilClosed(async () => {
      this.#meter.connection();
      return open();
    }, free);
  }

  /** The answer to a program's question for a name: it takes an open file of ours, as a connection does. */
  async #lookUp(name: string): Promise<string[]> {
    // A question carries some, too.
    this.#meter.assertLeft();
    const free = this.#takeAmongAll();
    try {
      return await this.#options.resolve(name);
    } finally {
      free();
    }
  }

  /** @returns what gives it back. @throws StacyError `limit` */
  #takeAmongAll(): () => void {
    const { shared } = this.#options;
    if (shared === undefined) return () => {};
    if (shared.open >= shared.mostOpen) {
      throw new StacyError("limit", `all sandboxes together have ${shared.mostOpen} connections, which is the most`, {
        remedy: "try again later, or raise `network.max_connections_total`",
      });
    }
    shared.open++;
    return () => void shared.open--;
  }

  /**
   * Each is a process of the server's host: those that find no place among all sandboxes' are lost, as on a network. One sandbox never has more
   * of the places than are free, so that a few that ask silent hosts leave some to the others.
   */
  async #ping(address: string): Promise<boolean> {
    const { shared = { pings: 0 }, ping: ask = ping } = this.#options;
    if (this.#pings >= DATAGRAM_BOUNDS.pings - shared.pings) return false;
    this.#meter.connection();
    shared.pings += 1;
    this.#pings += 1;
    try {
      return await ask(address);
    } finally {
      shared.pings -= 1;
      this.#pings -= 1;
    }
  }

  get #reach(): Reach {
    const { addresses, resolve } = this.#options;
    return { judges: () => this.#judges, addresses, resolve };
  }

  /** Those beyond the limit wait in the guest's own queue. Whoever waits for one has its place already. */
  async #place<T>(wait: () => Promise<T>): Promise<T> {
    while (this.#connections.open + this.#places >= this.#most) await this.#freed.promise;
    this.#places += 1;
    return wait().finally(() => {
      this.#places -= 1;
    });
  }

  /** Each of the two ways must be able to wait for one. */
  get #most(): number {
    return Math.max(2, this.#options.maxConnections);
  }

  /** So many of each way are taken without a round trip in between. */
  get #waiting(): number {
    return Math.max(1, Math.min(WAITING, Math.floor(this.#most / 4)));
  }

  #free(): void {
    this.#freed.resolve();
    this.#freed = Promise.withResolvers();
  }

  get #judges(): Judge[] {
    return [
      { rules: this.#rules, whose: "this sandbox" },
      { rules: this.#options.ceiling, whose: "`network.allow` of the server" },
    ];
  }

  #permitName(name: string): boolean {
    for (const { rules, whose } of this.#judges) {
      const { permitted, rule } = rules.judgeHost(name);
      if (permitted) continue;
      this.#tell({ host: name, port: DNS_PORT }, refusal(name, rule, whose));
      return false;
    }
    return true;
  }

  #tell(target: Target, failure: StacyError | undefined): void {
    const result = failure === undefined ? "connected" : failure.code === "permission" ? "refused" : "failed";
    this.#counts[result] += 1;
    if (this.#options.shared !== undefined) this.#options.shared.counts[result] += 1;
    if (failure?.code === "permission" || failure?.code === "limit") {
      const now = performance.now();
      for (const [name, at] of this.#told) if (now - at >= TELL_AGAIN_MS) this.#told.delete(name);
      const name = `${target.host}:${target.port}`;
      // What a guest asks for must grow neither our memory nor our log.
      if (this.#told.has(name) || this.#told.size >= TOLD_MOST) return;
      this.#told.set(name, now);
      this.#options.refused({ ...target, reason: failure.message });
    }
  }
}
