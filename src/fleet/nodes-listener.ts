/**
 * This node's part in the fleet over HTTP: the listener on which other nodes pass requests on to it, and the front of its own clients'
 * listener. It is bound before the database is asked, since others are told its address, and answers once all is there.
 */
import type { Logger } from "pino";
import type { Access } from "../access/access.ts";
import type { Api } from "../api/endpoint.ts";
import { type Front, listen, type RunningServer } from "../api/server.ts";
import type { Config } from "../config/schema.ts";
import type { SandboxTokens } from "../e2b/sandbox-tokens.ts";
import { StacyError } from "../host/error.ts";
import { isLoopback } from "../host/loopback.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import { Between } from "./between.ts";
import type { Placement } from "./contract.ts";
import { Entrance } from "./entrance.ts";
import type { Fleet } from "./fleet.ts";
import { Forwarder } from "./forwarding/forwarder.ts";
import { Probes } from "./forwarding/probes.ts";
import { Inward } from "./inward.ts";
import { Lists } from "./lists.ts";
import { Arrivals, type ImageContents } from "./moving/arrivals.ts";
import { Moves } from "./moving/moves.ts";
import { placement } from "./placement.ts";
import { Placing } from "./placing.ts";
import { shareGoldens } from "./transfer/goldens.ts";
import { Rate } from "./transfer/rate.ts";
import { Assertions, derived } from "./trust/assertions.ts";
import { NodeTls } from "./trust/node-tls.ts";

/** A client's headers, which its own listener has let in, and what a node says beside them. */
const MAX_HEADER_BYTES = 32_768;
const SECRET_BYTES = 32;
/** The longest wait for a sign of life. */
const PROBE_MS = 1_000;

export interface FrontParts {
  fleet: Pick<Fleet, "directory" | "lost" | "ownership" | "moveBy">;
  images: ImageContents;
  /** Default: by what nodes say of themselves. */
  placement?: Placement;
  sandboxes: Sandboxes;
  access: Access;
  tokens: SandboxTokens;
  config: Config;
  app: Pick<Api, "fetch">;
  log: Logger;
}

export class NodesListener {
  /** How others on this network reach it, where nothing else is configured. */
  readonly url: string;
  readonly #server: RunningServer;
  readonly #inward: Inward;
  readonly #tls: NodeTls | undefined;
  readonly #config: Config["fleet"];
  readonly #application: { app: Pick<Api, "fetch"> | undefined };
  #forwarder: Forwarder | undefined;
  #closing: Promise<void> | undefined;

  private constructor(parts: {
    server: RunningServer;
    inward: Inward;
    tls: NodeTls | undefined;
    config: Config["fleet"];
    application: { app: Pick<Api, "fetch"> | undefined };
  }) {
    this.#server = parts.server;
    this.#inward = parts.inward;
    this.#tls = parts.tls;
    this.#config = parts.config;
    this.#application = parts.application;
    this.url = parts.server.url;
  }

  /** @throws StacyError `invalid` for a configuration that would not be safe; `unavailable` when the address is taken */
  static async bind({ fleet, server }: Config, log: Logger): Promise<NodesListener> {
    const { host, port } = addressOf(fleet);
    const tls = await tlsOf(fleet, log);
    if (tls === undefined && !isLoopback(host)) {
      const words =
        "nodes speak to each other without TLS: whoever is between them reads all of it and can change bodies";
      log.warn({ phase: "fleet" }, `${words}; see fleet.certificate_file`);
    }
    const inward = new Inward();
    const application: { app: Pick<Api, "fetch"> | undefined } = { app: undefined };
    const app: Pick<Api, "fetch"> = {
      fetch: (...request) => (application.app as Pick<Api, "fetch">).fetch(...request),
    };
    try {
      const running = await listen(
        app,
        // How many clients there may be each node says to its own.
        { ...server, host, port, max_connections: 65_536 },
        {
          front: inward,
          maxHeaderBytes: MAX_HEADER_BYTES,
          ...(tls === undefined
            ? {}
            : { tls: { options: tls.server(), changed: (listener: (o: object) => void) => tls.onChange(listener) } }),
        },
      );
      return new NodesListener({ server: running, inward, tls, config: fleet, application });
    } catch (error) {
      tls?.[Symbol.dispose]();
      throw error;
    }
  }

  /** ms of `performance.now()`, as `RunningServer` has it. */
  get usedAt(): number {
    return this.#server.usedAt;
  }

  /** Answers nodes from now on. @returns the front of the clients' listener */
  open(parts: FrontParts): Front {
    const { fleet, sandboxes, images, config, app, log } = parts;
    const { directory } = fleet;
    this.#application.app = app;
    const assertions = new Assertions(this.#config.secret, directory.self.id);
    const forwarder = new Forwarder({
      tls: this.#tls,
      answers: (nodeId) => {
        const node = directory.nodes().find(({ id }) => id === nodeId);
        return node !== undefined && probes.seems(node);
      },
    });
    // Any answer is one.
    const probes = new Probes((node) => {
      const [method, path] = ["GET", "/live"];
      const seal = (headers: string[]): string =>
        assertions.sign({ to: node.id, address: "" }, { method, path, headers });
      return forwarder.ask(node, { method, path, headers: [] }, seal, AbortSignal.timeout(PROBE_MS));
    });
    this.#forwarder = forwarder;
    const isHere = (id: string): boolean =>
      sandboxes.find(id) !== undefined && !sandboxes.transits.has(id) && !fleet.lost(id);
    const between = new Between({ directory, forwarder, assertions });
    const { preview_domain: previewDomain } = config.server;
    this.#inward.open({ directory, assertions, between, sandboxes, isHere, previewDomain, log });
    const moving = { directory, placement, between, sandboxes, images, registry: fleet.ownership, log };
    new Arrivals({ ...moving, rate: new Rate(config.fleet.transfer_rate) });
    shareGoldens(moving);
    fleet.moveBy(new Moves({ ...moving, answers: (node) => probes.answers(node) }));
    const isOwn = (template: string): boolean =>
      sandboxes.checkpoints.list().some(({ id, name }) => id === template || name === template) ||
      sandboxes.templates.list().some(({ name }) => name === template);
    const shared = { placement, ...parts, directory, isHere, forwarder, assertions, probes };
    return new Entrance({
      ...shared,
      placing: new Placing({ ...shared, limits: sandboxes.limits, isOwn }),
      lists: new Lists(shared),
    });
  }

  /** Of tokens of sandboxes (E2B), which are good at all nodes. */
  get tokensSecret(): Buffer {
    return derived(this.#config.secret, "tokens of sandboxes");
  }

  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    await this.#server.close(graceMs);
    this.#forwarder?.close();
    this.#tls?.[Symbol.dispose]();
  }
}

/** @throws StacyError `invalid` */
function addressOf({ address, secret, url }: Config["fleet"]): { host: string; port: number } {
  const invalid = (message: string, remedy: string): StacyError =>
    new StacyError("invalid", message, { phase: "fleet", remedy });
  const [, host = "", port = ""] = /^\[?([^\]]*)\]?:(\d{1,5})$/.exec(address) ?? [];
  if (host === "" || Number(port) > 65_535) {
    throw invalid(
      `fleet.address: ${JSON.stringify(address)} is no address`,
      "give it as HOST:PORT, for example 10.0.0.2:7424",
    );
  }
  if ((host === "0.0.0.0" || host === "::") && url === "") {
    throw invalid(
      `fleet.address: nobody reaches this node at ${address}`,
      "give fleet.url too, as the others reach it: http://10.0.0.2:7424",
    );
  }
  if (Buffer.byteLength(secret) < SECRET_BYTES) {
    throw invalid(
      `fleet.secret: it has to have ${SECRET_BYTES} characters at least, the same on all nodes`,
      "make one with `openssl rand -hex 32`",
    );
  }
  return { host, port: Number(port) };
}

async function tlsOf(
  { certificate_file, key_file, ca_file }: Config["fleet"],
  log: Logger,
): Promise<NodeTls | undefined> {
  const given = [certificate_file, key_file, ca_file].filter((path) => path !== "");
  if (given.length === 0) return undefined;
  if (given.length < 3) {
    throw new StacyError("invalid", "fleet.certificate_file, fleet.key_file and fleet.ca_file belong together", {
      phase: "fleet",
      remedy: "give all three, or none",
    });
  }
  return await NodeTls.open({ certificate: certificate_file, key: key_file, ca: ca_file }, (err) => {
    if (err === undefined) log.info({ phase: "fleet" }, "new certificates are in force between nodes");
    else log.warn({ phase: "fleet", err }, "new certificates cannot be used: the old ones stay in force");
  });
}
