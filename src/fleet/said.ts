/** Answers that the fleet itself gives, in the form of the protocol that was spoken. */
import { json } from "../api/endpoint.ts";
import { problemOf, requestIdOf } from "../api/problem.ts";
import { writeResponse } from "../api/server.ts";
import { errorResponse } from "../e2b/error.ts";
import { StacyError } from "../host/error.ts";
import type { Answer, Call } from "./forwarding/forwarder.ts";

/** How soon a client may ask again, s. */
const RETRY_AFTER_S = 2;

/** A sandbox whose node does not answer. */
export function unreachable(sandbox: string, node: string, cause?: unknown): StacyError {
  return new StacyError("unavailable", `the sandbox ${sandbox} is unreachable: its node ${node} does not answer`, {
    phase: "unreachable",
    cause,
    remedy: "try again: it is there when its node is (`stacyvm node ls`)",
  });
}

/** It was asked, and nobody knows what it did. */
export function brokenOff(node: string, cause: unknown): StacyError {
  return new StacyError("disconnected", `the connection to the node ${node} broke off before its answer`, {
    phase: "forward",
    cause,
    remedy: "look at what it has done before you ask again",
  });
}

export function errorAs({ incoming }: Call, error: unknown, e2b: boolean): Response {
  const again = error instanceof StacyError && error.code === "unavailable";
  const retry = { "retry-after": String(RETRY_AFTER_S) };
  const given = incoming.headers["x-request-id"];
  const id = requestIdOf(Array.isArray(given) ? given[0] : given);
  if (e2b) {
    const response = errorResponse(error);
    response.headers.set("x-request-id", id);
    if (again) response.headers.set("retry-after", retry["retry-after"]);
    return response;
  }
  const problem = problemOf(error, id);
  return json(problem.body, problem.status, { "x-request-id": id, ...(again ? retry : {}) });
}

export async function sayResponse({ outgoing, upgrade }: Call, response: Response): Promise<void> {
  if (upgrade !== undefined) return await writeResponse(upgrade.socket, response);
  if (outgoing.destroyed || outgoing.headersSent) return void outgoing.destroy();
  const body = Buffer.from(await response.arrayBuffer());
  const headers = [...response.headers].flat();
  outgoing.writeHead(response.status, [...headers, "content-length", String(body.length)]);
  outgoing.end(body);
}

/** What a node has said, as it was. */
export async function sayAnswer(call: Call, { status, headers, body }: Answer): Promise<void> {
  const kept = new Headers();
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? "";
    if (name.toLowerCase() !== "content-length") kept.append(name, headers[i + 1] ?? "");
  }
  await sayResponse(call, new Response(Uint8Array.from(body), { status, headers: kept }));
}
