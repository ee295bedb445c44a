/** What this server gives sandboxes of the network, whoever asks for what. Without rules of its own a sandbox gets none. */

import { getCACertificates } from "node:tls";
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
import { BUILT_IN_GROUPS, GROUP_NAME, type HostGroups } from "./host-groups.ts";
import { HostRules, OWN_HOST, ofOwnHost } from "./host-rules.ts";
import { NO_LIMITS, type Traffic, type TrafficLimits } from "./meter.ts";
import { type Resolve, resolverOf } from "./resolver.ts";
import type { Authority } from "./secrets/authority.ts";
import type { Vault } from "./secrets/secret.ts";

export { type Egress, type EgressStatus, networkEnvironment, PROXY_ENVIRONMENT };

export interface NetworkOptions {
  /** Rules that a sandbox's own must keep within (host-rules.ts). Empty: no network for anybody. */
  allow: readonly string[];
  /** Addresses and ranges that may be reached although they are not public. */
  private: readonly string[];
  /** Addresses of names that the host's own resolver does not know, or knows otherwise. */
  names: Readonly<Record<string, string>>;
  /** Ports of this host's own loopback that sandboxes may be allowed, as host.stacyvm. */
  hostPorts: readonly number[];
  /** Rules by the name of their group, beside the built-in ones or in their place. */
  groups: HostGroups;
  /** Certificates of authorities that hosts of secrets may have theirs from, PEM, beside those that Node knows. */
  trusted: readonly string[];
  /** Of one sandbox. */
  limits: TrafficLimits;
  /** Connections of one sandbox at once. */
  maxConnections: number;
  /** Of all sandboxes together. */
  maxConnectionsTotal: number;
  /** A connection over which nothing went for so long is closed, ms. */
  idleMs: number;
}

export const DEFAULT_NETWORK: NetworkOptions = {
  allow: ["*:*", "*:*/udp"],
  private: [],
  names: {},
  hostPorts: [],
  groups: {},
  trusted: [],
  limits: NO_LIMITS,
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
  readonly #groups: HostGroups;
  readonly #trusted: readonly string[];
  /** Who has the secrets of sandboxes; set before the first of them is there. */
  vault: Vault | undefined;

  /** @throws StacyError `invalid` naming the entry */
  constructor(options: NetworkOptions = DEFAULT_NETWORK) {
    this.#groups = groupsOf(options.groups);
    this.#ceiling = new HostRules(
      [...options.allow, ...options.hostPorts.map((port) => `${OWN_HOST}:${port}`)],
      this.#groups,
    );
    this.#addresses = new Addresses(options.private);
    this.#resolve = resolverOf(options.names);
    this.#options = options;
    this.#trusted = options.trusted.length === 0 ? [] : [...getCACertificates("default"), ...options.trusted];
    this.#shared = {
      counts: { connected: 0, refused: 0, failed: 0 },
      traffic: { sent: 0, received: 0 },
      open: 0,
      mostOpen: options.maxConnectionsTotal,
      pings: 0,
    };
  }

  /** Connections to hosts, of all sandboxes since the start: that came about, that were refused, that failed otherwise. */
  get counts(): Readonly<Counts> {
    return this.#shared.counts;
  }

  /** Bytes to hosts and from them, of all sandboxes since the start. */
  get traffic(): Readonly<Traffic> {
    return this.#shared.traffic;
  }

  /** The rules of a sandbox that somebody asks for now. @throws StacyError `invalid`, or `permission` where the server gives no network at all */
  rules(hosts: readonly string[]): HostRules {
    const rules = new HostRules(hosts, this.#groups);
    for (const rule of ofOwnHost(hosts)) {
      if (new HostRules([rule]).beyond(this.#ceiling) === undefined) continue;
      throw new StacyError("permission", `${rule}: this server gives sandboxes no such port of its host`, {
        remedy: "ask the operator to name it in `network.host_ports`",
      });
    }
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
   * @param about whose it is, if it may have secrets, and who is told of each refused host once a minute
   */
  egress(
    hosts: readonly string[],
    guest: GuestSide,
    about: { id?: string; authority?: Authority | undefined; refused?: (refused: Refused) => void } = {},
  ): Egress {
    const { id, authority, refused = () => {} } = about;
    const secrets =
      id === undefined || authority === undefined
        ? undefined
        : { authority, list: () => this.vault?.of(id), trusted: this.#trusted };
    return new Egress({
      rules: this.#kept(hosts),
      ceiling: this.#ceiling,
      addresses: this.#addresses,
      resolve: this.#resolve,
      maxConnections: this.#options.maxConnections,
      limits: this.#options.limits,
      idleMs: this.#options.idleMs,
      shared: this.#shared,
      guest,
      ...(secrets === undefined ? {} : { secrets }),
      refused,
    });
  }

  /** A group that the configuration has no more permits nothing, and refuses everything where it was refused. */
  #kept(hosts: readonly string[]): HostRules {
    const known = (rule: string): boolean =>
      !/^!?@/.test(rule) || Object.hasOwn(this.#groups, rule.replace(/^!?@/, ""));
    const lost = hosts.some((rule) => rule.startsWith("!") && !known(rule));
    return new HostRules(lost ? [] : hosts.filter(known), this.#groups);
  }
}

/** @throws StacyError `invalid` naming the entry */
export function groupsOf(configured: HostGroups): HostGroups {
  for (const [name, rules] of Object.entries(configured)) {
    const nested = rules.find((rule) => /^!?@/.test(rule));
    if (!GROUP_NAME.test(name) || nested !== undefined || rules.some((rule) => rule.startsWith("!"))) {
      throw new StacyError("invalid", `network.groups: ${JSON.stringify(name)} is no group of hosts`, {
        remedy: "write it as name: [host, ...], with neither other groups nor refusals in it",
      });
    }
    new HostRules(rules, {});
  }
  return { ...BUILT_IN_GROUPS, ...configured };
}
