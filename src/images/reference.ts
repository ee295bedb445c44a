/** References to images as people write them, in the one full form that everything below uses. */
import { StacyError } from "../host/error.ts";

export interface Reference {
  /** Host, with a port where one is given: `docker.io`, `localhost:5000`. */
  registry: string;
  /** For example `library/python`. */
  repository: string;
  tag: string | undefined;
  /** `sha256:<hex>`; decides when a tag is given too. */
  digest: string | undefined;
  /** All of it: `docker.io/library/python:3.12`. */
  full: string;
}

/** The registry that a name without one means, as with every container tool. */
export const DEFAULT_REGISTRY = "docker.io";
/** Other names that it answers to. */
const HUB_NAMES = new Set(["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"]);

const DOMAIN =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[\w][\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
/** Kept for images that this software makes; never looked up at a registry. */
export const OWN_PREFIX = "stacyvm/";

/**
 * Reads `python`, `python:3.12`, `ghcr.io/team/tool@sha256:...`: no registry means Docker Hub, there no path means `library/`,
 * no tag and no digest mean `latest`.
 * @throws StacyError `invalid`
 */
export function parseReference(text: string): Reference {
  const invalid = (why: string): StacyError =>
    new StacyError("invalid", `${JSON.stringify(text.slice(0, 300))} is no image reference: ${why}`, {
      remedy: "write it like `python:3.12` or `ghcr.io/team/tool@sha256:...`",
    });
  if (text.length > 600) throw invalid("it is too long");
  let rest = text;
  let digest: string | undefined;
  const sign = rest.indexOf("@");
  if (sign !== -1) {
    digest = rest.slice(sign + 1);
    rest = rest.slice(0, sign);
    if (!DIGEST.test(digest)) throw invalid("the digest must be sha256 with 64 hex digits");
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw invalid("the tag has characters that tags cannot have");
  }
  const slash = rest.indexOf("/");
  const head = slash === -1 ? "" : rest.slice(0, slash);
  // Docker's rule: a first part is a host only when it looks like one.
  const hasHost = head !== "" && (/[.:]/.test(head) || head === "localhost" || head !== head.toLowerCase());
  // One registry has one name: a rule about it must not be gone around by how it is written.
  let registry = hasHost ? head.toLowerCase().replace(/:443$/, "") : DEFAULT_REGISTRY;
  if (HUB_NAMES.has(registry)) registry = DEFAULT_REGISTRY;
  let repository = hasHost ? rest.slice(slash + 1) : rest;
  if (!DOMAIN.test(registry)) throw invalid("the registry is no host name");
  if (registry === DEFAULT_REGISTRY && !repository.includes("/")) repository = `library/${repository}`;
  if (repository.length > 255) throw invalid("the name is longer than 255 characters");
  if (!repository.split("/").every((part) => COMPONENT.test(part))) {
    throw invalid("a name has lower-case letters, digits, and single . _ - between them");
  }
  if (tag === undefined && digest === undefined) tag = "latest";
  const full = `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
  return { registry, repository, tag, digest, full };
}

export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}
