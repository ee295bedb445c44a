/** Connecting to a host that a sandbox asked for: the rules, the name, each address it stands for, then the connection. */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { connect, isIP, isIPv4, type Socket } from "node:net";
import type { Addresses } from "../host/addresses.ts";
import { StacyError } from "../host/error.ts";
import { rememberGuests } from "../host/guest-sockets.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import { type HostRules, normaliseHost, OWN_HOST, type Protocol } from "./host-rules.ts";
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

/** What a program wants of a host: a port of it, or whether it is there. */
export type Wanted = { port: number; protocol: Protocol } | "echo";

/**
 * @throws StacyError `permission` when it may not be reached, `not-found` when the name does not resolve, `timeout`,
 * `unavailable` when nothing answers there
 */
export async function dial(host: string, port: number, reach: Reach): Promise<Socket> {
  const wanted = { port, protocol: "tcp" } as const;
  const name = normaliseHost(host);
  const inTime = limit(`${name}:${port}`);
  const { socket, connected } = open(name, port, await inTime(permittedAddresses(name, wanted, reach)));
  try {
    await inTime(connected);
    rememberGuests(socket);
    // They may have been changed meanwhile.
    assertPermitted(name, wanted, reach.judges());
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** A UDP socket that is connected to the host, as `dial`; that anything answers there nobody can know. */
export async function dialDatagrams(host: string, port: number, reach: Reach): Promise<DatagramSocket> {
  const wanted = { port, protocol: "udp" } as const;
  const name = normaliseHost(host);
  const inTime = limit(`${name}:${port}`);
  const [address = ""] = await inTime(permittedAddresses(name, wanted, reach));
  const socket = createSocket(isIPv4(address) ? "udp4" : "udp6");
  try {
    socket.connect(port, address);
    await once(socket, "connect");
    assertPermitted(name, wanted, reach.judges());
    return socket;
  } catch (cause) {
    socket.close();
    if (cause instanceof StacyError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new StacyError("unavailable", `cannot send to ${name}:${port}: ${why}`, { cause });
  }
}

/** An address of the host that may be asked for an echo, as `dial`. */
export async function addressForEcho(host: string, reach: Reach): Promise<string> {
  const name = normaliseHost(host);
  const [address = ""] = await limit(name)(permittedAddresses(name, "echo", reach));
  return address;
}

function limit(what: string): <T>(work: Promise<T>) => Promise<T> {
  const deadline = performance.now() + LIMIT_MS;
  return (work) =>
    withTimeLimit(
      work,
      Math.max(0, deadline - performance.now()),
      () => new StacyError("timeout", `${what} did not answer in ${LIMIT_MS / 1000} s`),
    );
}

/**
 * The addresses of a name that may be reached, one at least. They are connected to as they are: a name that is asked for twice may give
 * two answers.
 */
async function permittedAddresses(
  name: string,
  wanted: Wanted,
  { judges, addresses, resolve }: Reach,
): Promise<string[]> {
  assertPermitted(name, wanted, judges());
  // What it leads to is not for whoever answers questions for names to say.
  const found = name === OWN_HOST ? OWN_ADDRESSES : await resolve(name);
  const opened = found.filter((address) =>
    judges().every(({ rules }) => refusing(rules, address, wanted) === undefined),
  );
  if (opened.length === 0) assertAddress(name, found[0] ?? "", wanted, judges());
  const permitted = opened.filter((address) => name === OWN_HOST || addresses.permit(address));
  if (permitted.length === 0) {
    throw new StacyError("permission", `${name} is ${found.join(", ")}, which is no public address`, {
      remedy: "the operator can open it with `network.private`",
    });
  }
  return permitted;
}

/** @throws StacyError `permission` naming the rule that refuses it, if one does */
export function assertPermitted(name: string, wanted: Wanted, judges: readonly Judge[]): void {
  for (const { rules, whose } of judges) {
    const { permitted, rule } =
      wanted === "echo" ? rules.judgeHost(name) : rules.judge(name, wanted.port, wanted.protocol);
    if (!permitted) throw refusal(written(name, wanted), rule, whose);
  }
}

function assertAddress(name: string, address: string, wanted: Wanted, judges: readonly Judge[]): void {
  for (const { rules, whose } of judges) {
    const rule = refusing(rules, address, wanted);
    if (rule !== undefined) throw refusal(`${written(name, wanted)}, which is ${address},`, rule, whose);
  }
}

function refusing(rules: HostRules, address: string, wanted: Wanted): string | undefined {
  return wanted === "echo" ? rules.refusal(address) : rules.refusal(address, wanted.port, wanted.protocol);
}

/** As a rule for it would be written. */
function written(name: string, wanted: Wanted): string {
  if (wanted === "echo") return name;
  return `${name}:${wanted.port}${wanted.protocol === "udp" ? "/udp" : ""}`;
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
