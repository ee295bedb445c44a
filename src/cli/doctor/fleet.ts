/** The fleet that the server of this data directory is in: who answers, and whether clocks, versions and hosts agree. */
import type { FleetNode } from "../../../sdk/src/index.ts";
import { GOOD_MS } from "../../fleet/trust/assertions.ts";
import { asStacyError } from "../../host/error.ts";
import { findLocal } from "../local-socket.ts";
import type { Finding } from "./finding.ts";

/** What is compared of a node. */
export type ComparedNode = Pick<FleetNode, "name" | "state" | "draining" | "version" | "hostIdentity"> & {
  load: { clockOffsetMs?: number | undefined };
};

/** Clocks are said to differ before calls between nodes are refused for it. */
const CLOCKS_MS = GOOD_MS / 6;

/** What a server that runs on this data directory says of its fleet; none of one that is alone, or of none. */
export async function checkFleet(root: string): Promise<Finding[]> {
  using local = await findLocal(root);
  if (local === undefined) return [];
  try {
    const { Client } = await import("../../../sdk/src/index.ts");
    const client = new Client({ url: local.url, apiKey: local.key });
    return compareNodes(await client.nodes.list({ signal: AbortSignal.timeout(10_000) }));
  } catch (thrown) {
    const detail = `the server with pid ${local.pid} does not say: ${asStacyError(thrown).message}`;
    return [{ name: "fleet", state: "note", detail, meaning: "the servers that know one another" }];
  }
}

/** None for a server that is alone. */
export function compareNodes(nodes: readonly ComparedNode[]): Finding[] {
  if (nodes.length === 0) return [];
  return [whoAnswers(nodes), versions(nodes), clocks(nodes), hosts(nodes)];
}

function whoAnswers(nodes: readonly ComparedNode[]): Finding {
  const away = nodes.filter(({ state }) => state !== "up");
  const said = nodes.map(({ name, state, draining }) =>
    [name, ...(state === "up" ? [] : [state]), ...(draining ? ["draining"] : [])].join(" "),
  );
  return {
    name: "fleet",
    state: away.length === 0 ? "ok" : "note",
    detail: `${nodes.length === 1 ? "1 node" : `${nodes.length} nodes`}: ${said.join(", ")}`,
    meaning: "the servers that know one another",
    ...(away.length === 0
      ? {}
      : { remedy: "start what is silent or lost; `stacyvm node rm` takes one out that does not come back" }),
  };
}

function versions(nodes: readonly ComparedNode[]): Finding {
  const by = grouped(nodes, ({ version }) => version);
  return {
    name: "fleet versions",
    state: by.size === 1 ? "ok" : "note",
    detail: by.size === 1 ? [...by.keys()].join() : [...by].map(([v, names]) => `${v} on ${names}`).join("; "),
    meaning: "nodes of two releases work together while a fleet is upgraded",
    ...(by.size === 1 ? {} : { remedy: "upgrade the others too" }),
  };
}

function clocks(nodes: readonly ComparedNode[]): Finding {
  const known = nodes.flatMap(({ name, state, load: { clockOffsetMs: offset } }) =>
    offset === undefined || state !== "up" ? [] : [{ name, offset }],
  );
  known.sort((a, b) => a.offset - b.offset);
  const [first, last] = [known[0], known.at(-1)];
  const apart = (last?.offset ?? 0) - (first?.offset ?? 0);
  const far = apart > CLOCKS_MS;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  return {
    name: "fleet clocks",
    state: far ? "note" : "ok",
    detail: far
      ? `that of ${last?.name} is ${seconds(apart)} ahead of that of ${first?.name}`
      : known.length === 0
        ? "not compared yet"
        : `at most ${seconds(apart)} apart`,
    meaning: `what one node says to another is good for ${GOOD_MS / 1000} s by both clocks`,
    ...(far ? { remedy: "set the nodes' clocks (NTP)" } : {}),
  };
}

function hosts(nodes: readonly ComparedNode[]): Finding {
  const by = grouped(nodes, ({ hostIdentity }) => hostIdentity);
  return {
    name: "fleet hosts",
    state: "ok",
    detail: by.size === 1 ? "of one kind" : `of ${by.size} kinds: ${[...by.values()].join("; ")}`,
    meaning: "a saved machine wakes on a host of the kind that it was saved on: processor, monitor and kernel",
  };
}

/** Names of those that have the same. */
function grouped(nodes: readonly ComparedNode[], what: (node: ComparedNode) => string): Map<string, string> {
  const by = new Map<string, string>();
  for (const node of nodes) {
    const before = by.get(what(node));
    by.set(what(node), before === undefined ? node.name : `${before}, ${node.name}`);
  }
  return by;
}
