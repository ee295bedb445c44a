/** Connecting to a host that a sandbox asked for: the rules, the name, each address it stands for, then the connection. */
import { connect, isIP, type Socket } from "node:net";
import type { Addresses } from "../host/addresses.ts";
import { StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import { type HostRules, normaliseHost, OWN_HOST } from "./host-rules.ts";
import type { Resolve } from "./resolver.ts";

/** The name and the connection together. */
const LIMIT_MS = 30_000;
/** Of the server's own host: what listens on loopback. */
const OWN_ADDRESSES = ["127.0.0.1", "::1"];

export interface Judge {
  rules: HostRules;
  /** Whose they are, for people. */
  whose: string;
}

export interface Reach {
  /** The sandbox's own rules as they are now, and the operator's: all must permit it. */
  judges(): readonly Judge[];
  addresses: Addresses;
  resolve: Resolve;
}

/**
 * @throws StacyError `permission` when it may not be reached, `not-found` when the name does not resolve, `timeout`,
 * `unavailable` when nothing answers there
 */
export async function dial(host: string, port: number, { judges, addresses, resolve }: Reach): Promise<Socket> {
  const name = normaliseHost(host);
  assertPermitted(name, port, judges());
  const deadline = performance.now() + LIMIT_MS;
  const inTime = <T>(work: Promise<T>): Promise<T> =>
    withTimeLimit(
      work,
      Math.max(0, deadline - performance.now()),
      () => new StacyError("timeout", `${name}:${port} did not answer in ${LIMIT_MS / 1000} s`),
    );
  // What it leads to is not for whoever answers questions for names to say.
  const found = name === OWN_HOST ? OWN_ADDRESSES : await inTime(resolve(name));
  // Checked here and connected to as it is: a name that is asked for twice may give two answers.
  const opened = found.filter((address) => judges().every(({ rules }) => rules.refusal(address, port) === undefined));
  if (opened.length === 0) assertAddress(name, found[0] ?? "", port, judges());
  const permitted = opened.filter((address) => name === OWN_HOST || addresses.permit(address));
  if (permitted.length === 0) {
    throw new StacyError("permission", `${name} is ${found.join(", ")}, which is no public address`, {
      remedy: "the operator can open it with `network.private`",
    });
  }
  const { socket, connected } = open(name, port, permitted);
  try {
    await inTime(connected);
    // They may have been changed meanwhile.
    assertPermitted(name, port, judges());
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** @throws StacyError `permission` naming the rule that refuses it, if one does */
export function assertPermitted(name: string, port: number, judges: readonly Judge[]): void {
  for (const { rules, whose } of judges) {
    const { permitted, rule } = rules.judge(name, port);
    if (!permitted) throw refusal(`${name}:${port}`, rule, whose);
  }
}

function assertAddress(name: string, address: string, port: number, judges: readonly Judge[]): void {
  for (const { rules, whose } of judges) {
    const rule = rules.refusal(address, port);
    if (rule !== undefined) throw refusal(`${name}:${port}, which is ${address},`, rule, whose);
  }
}

export function refusal(what: string, rule: string | undefined, whose: string): StacyError {
  if (rule !== undefined) return new StacyError("permission", `${what} is refused by the rule ${rule} of ${whose}`);
  return new StacyError(
    "permission",
    `${what} is not among the hosts that this sandbox may connect to: no rule of ${whose} permits it`,
    {
      remedy: "allow it: `allowed_hosts` of the sandbox, within `network.allow` of the server",
    },
  );
}

function open(name: string, port: number, addresses: string[]): { socket: Socket; connected: Promise<void> } {
  const socket = connect({
    // Only a name makes it ask `lookup`, and with several answers it tries one after the other.
    host: "resolved.invalid",
    port,
    lookup: (_name, _options, callback) =>
      callback(
        null,
        addresses.map((address) => ({ address, family: isIP(address) })),
      ),
    autoSelectFamily: true,
    // What one side has finished says nothing about the other.
    allowHalfOpen: true,
    noDelay: true,
  });
  const connected = new Promise<void>((settle, reject) => {
    socket.once("connect", settle);
    // Stays: an error between here and whoever takes the socket would end our process.
    socket.on("error", (cause) => {
      const why = cause instanceof AggregateError ? (cause.errors[0] as Error | undefined)?.message : cause.message;
      reject(
        new StacyError("unavailable", `cannot connect to ${name}:${port}: ${why ?? "no reason given"}`, { cause }),
      );
    });
  });
  return { socket, connected };
}
