/**
 * One HTTP request of the server to a host that a registry, and so whoever wrote an image's name, has chosen. It goes to public addresses
 * only, looked up here and connected to as they were looked up, unless the operator has named that host.
 */
import { lookup } from "node:dns";
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  Agent as PlainAgent,
  request as plainRequest,
} from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import type { Addresses } from "../../host/addresses.ts";
import { StacyError } from "../../host/error.ts";

export interface Answer {
  url: URL;
  status: number;
  headers: IncomingHttpHeaders;
  /** Destroy it where it is not read to the end. */
  body: IncomingMessage;
}

export interface AskOptions {
  method?: "GET" | "POST";
  headers?: Record<string, string>;
  body?: string;
  signal: AbortSignal;
}

/** Connections of one pull. */
export class Asker {
  readonly #addresses: Addresses;
  readonly #named: (host: string) => boolean;
  readonly #agents: { "http:": PlainAgent; "https:": TlsAgent };

  /** @param named hosts (with port) that the operator has named: their addresses are not looked at */
  constructor(addresses: Addresses, named: (host: string) => boolean) {
    this.#addresses = addresses;
    this.#named = named;
    // As the environment has it for all of Node (docs/images.md).
    const proxyEnv = process.env.NODE_USE_ENV_PROXY === "1" ? { proxyEnv: process.env } : {};
    const options = { keepAlive: true, maxFreeSockets: 4, ...proxyEnv };
    this.#agents = { "http:": new PlainAgent(options), "https:": new TlsAgent(options) };
  }

  /** Does not follow redirects. @throws StacyError `permission` when the host may not be asked, else the network's own error */
  ask(url: URL, { method = "GET", headers = {}, body, signal }: AskOptions): Promise<Answer> {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const free = this.#named(url.host);
    if (!free && isIP(host) !== 0 && !this.#addresses.permit(host)) return Promise.reject(notPublic(url));
    // A proxy of the operator's is looked up too, under its own name.
    const check: LookupFunction = (name, options, callback) =>
      lookup(name, { ...options, all: true }, (error, found) => {
        if (error !== null) return callback(error, []);
        const good = free || name !== host ? found : found.filter(({ address }) => this.#addresses.permit(address));
        const [first] = good;
        if (first === undefined) return callback(notPublic(url) as NodeJS.ErrnoException, []);
        if (options.all === true) callback(null, good);
        else callback(null, first.address, first.family);
      });
    const secure = url.protocol === "https:";
    return new Promise((resolve, reject) => {
      const outgoing = (secure ? tlsRequest : plainRequest)(url, {
        agent: this.#agents[secure ? "https:" : "http:"],
        method,
        headers: { accept: "*/*", "user-agent": "stacyvm", ...headers },
        lookup: check,
        signal,
      });
      outgoing.once("error", reject);
      outgoing.once("response", (answer) => {
        outgoing.off("error", reject).on("error", () => {}); // met in the body
        resolve({ url, status: answer.statusCode ?? 0, headers: answer.headers, body: answer });
      });
      outgoing.end(body);
    });
  }
}

/** What the name resolves to is not said: whoever asks must not learn our network from it. */
function notPublic(url: URL): StacyError {
  return new StacyError("permission", `${url.host} is not at a public address`, {
    remedy: `if you trust it, name it in the configuration: images.registries, "${url.host}": {}`,
  });
}
