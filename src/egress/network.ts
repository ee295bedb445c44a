/** What this server gives sandboxes of the network, whoever asks for what. Without rules of its own a sandbox gets none. */

import { Addresses } from "../host/addresses.ts";
import { StacyError } from "../host/error.ts";
import {
  type Counts,
  Egress,
  type EgressStatus,
  type GuestSide,
  networkEnvironment,
  PROXY_ENVIRONMENT,
  type Refused,
  type SharedEgress,
} from "./egress.ts";
import { HostRules } from "./host-rules.ts";
import { type Resolve, resolverOf } from "./resolver.ts";

export { type Egress, type EgressStatus, networkEnvironment, PROXY_ENVIRONMENT };

export interface NetworkOptions {
  /** Rules that a sandbox's own must keep within (host-rules.ts). Empty: no network for anybody. */
  allow: readonly string[];
  /** Addresses and ranges that may be reached although they are not public. */
  private: readonly string[];
  /** Addresses of names that the host's own resolver does not know, or knows otherwise. */
  names: Readonly<Record<string, string>>;
  /** Connections of one sandbox at once. */
  maxConnections: number;
  /** Of all sandboxes together. */
  maxConnectionsTotal: number;
  /** A connection over which nothing went for so long is closed, ms. */
  idleMs: number;
}

export const DEFAULT_NETWORK: NetworkOptions = {
  allow: ["*:*"],
  private: [],
  names: {},
  maxConnections: 128,
  maxConnectionsTotal: 4_096,
  idleMs: 3_600_000,
};

export class Network {
  readonly #ceiling: HostRules;
  readonly #addresses: Addresses;
  readonly #resolve: Resolve;
  readonly #options: NetworkOptions;
  readonly #shared: SharedEgress;

  /** @throws StacyError `invalid` naming the entry */
  constructor(options: NetworkOptions = DEFAULT_NETWORK) {
    this.#ceiling = new HostRules(options.allow);
    this.#addresses = new Addresses(options.private);
    this.#resolve = resolverOf(options.names);
    this.#options = options;
    this.#shared = {
      counts: { connected: 0, refused: 0, failed: 0 },
      open: 0,
      mostOpen: options.maxConnectionsTotal,
    };
  }

  /** Connections to hosts, of all sandboxes since the start: that came about, that were refused, that failed otherwise. */
  get counts(): Readonly<Counts> {
    return this.#shared.counts;
  }

  /** The rules of a sandbox that somebody asks for now. @throws StacyError `invalid`, or `permission` where the server gives no network at all */
  rules(hosts: readonly string[]): HostRules {
    const rules = new HostRules(hosts);
    if (!rules.empty && this.#ceiling.empty) {
      throw new StacyError("permission", "this server gives sandboxes no network", {
        remedy: "leave `allowed_hosts` out, or ask the operator to set `network.allow`",
      });
    }
    return rules;
  }

  /**
   * The way out of one guest; it does nothing before `start`. What a sandbox was given earlier is no error where the server gives less
   * now: its connections are refused.
   * @param refused told of each host once a minute
   */
  egress(hosts: readonly string[], guest: GuestSide, refused: (refused: Refused) => void = () => {}): Egress {
    return new Egress({
      rules: new HostRules(hosts),
      ceiling: this.#ceiling,
      addresses: this.#addresses,
      resolve: this.#resolve,
      maxConnections: this.#options.maxConnections,
      idleMs: this.#options.idleMs,
      shared: this.#shared,
      guest,
      refused,
    });
  }
}
