/**
 * The tokens of sandboxes. A client gets one with its sandbox and shows it with each request to that sandbox; it is made of the
 * sandbox's id, the key that the client has shown and a secret of this server, so nothing has to be kept. It names the key by its id:
 * who is behind that now, and whether anybody still is, says `Access`.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { link, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Credential } from "../access/identity.ts";
import { errno } from "../host/error.ts";
import { withoutEnd } from "../host/trim.ts";

const FILE = "e2b.key";

/** A link to one file, for a reader or a writer that has no token. */
export interface SignedLink {
  path: string;
  operation: "read" | "write";
  user: string;
  signature: string;
  /** s since 1970, as it is written; `null`: for ever. */
  expires: string | null;
}

/** What may be sent by a link: files of a template, by their hash. */
export interface Upload {
  owner: string;
  hash: string;
  /** s since 1970, as it is written. */
  expires: string;
}

export function signedLink(method: string, query: URLSearchParams): SignedLink {
  return {
    path: query.get("path") ?? "",
    operation: method === "GET" ? "read" : "write",
    user: query.get("username") ?? "",
    signature: query.get("signature") ?? "",
    expires: query.get("signature_expiration"),
  };
}

export class SandboxTokens {
  readonly #secret: Buffer;

  constructor(secret: Buffer) {
    this.#secret = secret;
  }

  /** @param dataDir where the secret lies, made by whoever comes first */
  static async open(dataDir: string): Promise<SandboxTokens> {
    const path = join(dataDir, FILE);
    const present = await readSecret(path);
    if (present !== undefined) return new SandboxTokens(present);
    const mine = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
    await writeFile(mine, randomBytes(32).toString("hex"), { mode: 0o600 });
    await link(mine, path).catch((error) => {
      if (errno(error) !== "EEXIST") throw error;
    });
    await rm(mine, { force: true });
    return new SandboxTokens((await readSecret(path)) ?? randomBytes(32));
  }

  /** What opens a sandbox's files and processes. */
  of(sandboxId: string, by: Credential): string {
    return this.#made(by, "envd", sandboxId);
  }

  matches(sandboxId: string, by: Credential, presented: string): boolean {
    return equal(this.of(sandboxId, by), presented);
  }

  /** What opens the ports that its programs serve, and the code interpreter. */
  traffic(sandboxId: string, by: Credential): string {
    return this.#made(by, "traffic", sandboxId);
  }

  matchesTraffic(sandboxId: string, by: Credential, presented: string): boolean {
    return equal(this.traffic(sandboxId, by), presented);
  }

  /** Of a link to which a template's files are sent. @param expires s since 1970 */
  ofUpload({ owner, hash, expires }: Upload, by: Credential): string {
    return this.#made(by, "upload", owner, hash, expires);
  }

  matchesUpload(upload: Upload, by: Credential, signature: string, nowMs: number): boolean {
    return Number(upload.expires) * 1000 > nowMs && equal(this.ofUpload(upload, by), signature);
  }

  /** What is shown for a volume's files. */
  ofVolume(volumeId: string, by: Credential): string {
    return this.#made(by, "volume", volumeId);
  }

  matchesVolume(volumeId: string, by: Credential, presented: string): boolean {
    return equal(this.ofVolume(volumeId, by), presented);
  }

  /** Whose a token or an upload's signature says that it is. */
  static credentialIn(presented: string): string {
    return presented.slice(0, Math.max(0, presented.indexOf(".")));
  }

  #made({ id, bound }: Credential, ...what: string[]): string {
    const text = JSON.stringify([...what, id, bound]);
    return `${id}.${createHmac("sha256", this.#secret).update(text).digest("hex")}`;
  }

  /** @returns `expired` for one that was right */
  looksAt(sandboxId: string, by: Credential, link: SignedLink, nowMs: number): "right" | "expired" | "wrong" {
    const { path, operation, user, signature, expires } = link;
    const end = expires === null ? "" : `:${expires}`;
    const text = `${path}:${operation}:${user}:${this.of(sandboxId, by)}${end}`;
    const digest = createHash("sha256").update(text).digest("base64");
    if (!equal(`v1_${withoutEnd(digest, "=")}`, withoutEnd(signature, "="))) return "wrong";
    return expires === null || Number(expires) * 1000 > nowMs ? "right" : "expired";
  }
}

async function readSecret(path: string): Promise<Buffer | undefined> {
  const text = await readFile(path, "utf8").catch((error) => {
    if (errno(error) === "ENOENT") return "";
    throw error;
  });
  return /^[0-9a-f]{64}$/.test(text) ? Buffer.from(text, "hex") : undefined;
}

function equal(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return left !== undefined && right !== undefined && timingSafeEqual(left, right);
}
