/**
 * Secrets of owners, and of single sandboxes: what they are for, and their values. A value is kept sealed in the database when the
 * configuration has a key for that, else in memory alone; of a file or a variable of this server only the name is kept. Nothing here
 * ever hands a value to anything but the broker (egress/secrets/).
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { checkPlacement, checkValue, type KeptSecret, type Placement, SecretHosts } from "../egress/secrets/secret.ts";
import { TRUST_ENVIRONMENT } from "../egress/secrets/trust.ts";
import { OWNER_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import type { Log } from "./observer.ts";
import type { SecretRecord, SecretSource } from "./record.ts";
import type { Seal } from "./seal.ts";
import type { Store } from "./store.ts";

/** It is a variable's, too. */
export const SECRET_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
/** Programs are found, started, shown and connected by these: with a placeholder in one of them a sandbox may start nothing. */
const SYSTEM_VARIABLE =
  /^(PATH|HOME|USER|LOGNAME|SHELL|PWD|TERM|TMPDIR|HOSTNAME|LANG|LC_.*|LD_.*|IFS|ENV|BASH_ENV|NODE_(OPTIONS|PATH|USE_ENV_PROXY)|PYTHON(PATH|HOME)|SSL_CERT_DIR)$|^(https?|no|all)_proxy$|^(HTTPS?|NO|ALL)_PROXY$/;
const PLACEHOLDER = /^[A-Za-z0-9._~-]{8,256}$/;
/** A value has its bound; a file that is longer is not one. */
const MOST_FILE_BYTES = 16_384;

/** For one that there is: what is absent stays. */
export interface SecretInput {
  name: string;
  hosts?: string[];
  placement?: Placement;
  placeholder?: string;
  /** One of the three. */
  value?: string;
  file?: string;
  variable?: string;
  everywhere?: boolean;
}

export interface SecretInfo extends Omit<SecretRecord, "sealed"> {
  /** The value is there, as far as this server knows. */
  available: boolean;
  /** It survives this server's next start. */
  kept: boolean;
}

export interface SecretsParts {
  store: Store;
  clock: Clock;
  events: Events;
  log: Log;
  /** Absent: values are kept in memory alone. */
  seal?: Seal | undefined;
  /** Told after a change, whose it was. */
  changed(owner: string): void;
}

export class Secrets {
  readonly #parts: SecretsParts;
  readonly #records = new Map<string, SecretRecord>();
  readonly #values = new Map<string, string>();
  readonly #writes = new SerialQueue();

  constructor(parts: SecretsParts) {
    this.#parts = parts;
    const { store, seal, log } = parts;
    for (const record of store.secrets()) {
      const key = keyOf(record);
      this.#records.set(key, record);
      if (record.sealed === undefined) continue;
      const value = seal?.open(record.sealed, key);
      if (value !== undefined) this.#values.set(key, value);
      else log.warn({ secret: record.name, owner: record.owner }, "a secret cannot be opened with this `secrets.key`");
    }
  }

  /** By name; those of sandboxes are not among them. */
  list(owner?: string): SecretInfo[] {
    return [...this.#records.values()]
      .filter((record) => record.sandbox === undefined && (owner === undefined || record.owner === owner))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.owner < b.owner ? -1 : 1))
      .map((record) => this.#info(record));
  }

  /** @throws StacyError `not-found` */
  get(owner: string, name: string): SecretInfo {
    return this.#info(this.#named(owner, name));
  }

  /**
   * Makes it, or changes what is given: another value counts from the next request on. One after another: what stays of two changes
   * is never the value of one with the hosts of the other.
   * @throws StacyError `invalid`
   */
  put(owner: string, input: SecretInput, sandbox?: string): Promise<SecretInfo> {
    return this.#writes.run(() => this.#put(owner, input, sandbox));
  }

  async #put(owner: string, input: SecretInput, sandbox: string | undefined): Promise<SecretInfo> {
    const key = keyOf({ owner, name: input.name, ...(sandbox === undefined ? {} : { sandbox }) });
    const before = this.#records.get(key);
    const { record, value } = this.#made(owner, input, before, sandbox);
    if (before === undefined && sandbox === undefined && this.list(owner).length >= OWNER_BOUNDS.secrets) {
      throw new StacyError("limit", `there are ${OWNER_BOUNDS.secrets} secrets already`, { remedy: "delete some" });
    }
    if (value !== undefined && this.#parts.seal !== undefined) record.sealed = this.#parts.seal.close(value, key);
    await this.#parts.store.putSecret(record);
    this.#records.set(key, record);
    if (value !== undefined) this.#values.set(key, value);
    else if (record.source.kind !== "value") this.#values.delete(key);
    if (sandbox === undefined) this.#parts.events.emit("secret.saved", undefined, { name: record.name }, owner);
    this.#parts.changed(owner);
    return this.#info(record);
  }

  /** @throws StacyError `not-found` */
  async remove(owner: string, name: string): Promise<void> {
    const key = keyOf({ owner, name });
    await this.#forget(key, this.#named(owner, name));
    this.#parts.events.emit("secret.deleted", undefined, { name }, owner);
    this.#parts.changed(owner);
  }

  /** Looks at what a spawn brings along, before anything is made. @throws StacyError `invalid` */
  check(owner: string, input: SecretInput): SecretRecord {
    return this.#made(owner, input, undefined, "sb-").record;
  }

  /**
   * What a sandbox of this owner may use: by name, what its template names, and what is everywhere.
   * @throws StacyError `not-found`
   */
  granted(owner: string, names: readonly string[]): SecretRecord[] {
    const found = new Map<string, SecretRecord>();
    for (const record of this.#records.values()) {
      if (record.owner === owner && record.everywhere === true) found.set(record.name, record);
    }
    for (const name of names) {
      found.set(name, this.#named(owner, name));
    }
    return [...found.values()];
  }

  /** Those of a sandbox: its own before its owner's. What is deleted is not among them. */
  of(owner: string, sandbox: string, names: readonly string[]): KeptSecret[] {
    return names.flatMap((name) => {
      const own = keyOf({ owner, name, sandbox });
      const key = this.#records.has(own) ? own : keyOf({ owner, name });
      const record = this.#records.get(key);
      if (record === undefined) return [];
      const { placeholder, placement, hosts } = record;
      return [{ name, placeholder, placement, hosts: hostsOf(hosts), read: () => this.#read(key) }];
    });
  }

  /** A copy of a sandbox has what that has. */
  async copy(owner: string, from: string, to: string): Promise<void> {
    for (const [key, record] of [...this.#records]) {
      if (record.owner !== owner || record.sandbox !== from) continue;
      const copied: SecretRecord = { ...record, sandbox: to };
      const copyKey = keyOf(copied);
      const value = this.#values.get(key);
      if (value !== undefined && this.#parts.seal !== undefined) copied.sealed = this.#parts.seal.close(value, copyKey);
      await this.#parts.store.putSecret(copied);
      this.#records.set(copyKey, copied);
      if (value !== undefined) this.#values.set(copyKey, value);
    }
  }

  /** A sandbox that ended takes its own along. Never rejects: what could not be deleted goes with the next start. */
  async ended(sandbox: string): Promise<void> {
    for (const [key, record] of [...this.#records]) {
      if (record.sandbox !== sandbox) continue;
      await this.#forget(key, record).catch(() => {
        this.#values.delete(key);
        this.#records.delete(key);
      });
    }
  }

  /** Deletes those of sandboxes that are not there any more. */
  async sweep(isThere: (sandbox: string) => boolean): Promise<void> {
    const gone = new Set<string>();
    for (const { sandbox } of this.#records.values()) if (sandbox !== undefined && !isThere(sandbox)) gone.add(sandbox);
    for (const sandbox of gone) await this.ended(sandbox);
  }

  /** None of a sandbox's own. @throws StacyError `not-found` */
  #named(owner: string, name: string): SecretRecord {
    const found = this.#records.get(keyOf({ owner, name }));
    if (found === undefined || found.sandbox !== undefined) throw unknown(name);
    return found;
  }

  /** First its row: one that could not be deleted is still there to be deleted again. */
  async #forget(key: string, record: SecretRecord): Promise<void> {
    const { owner, name, sandbox } = record;
    await this.#parts.store.deleteSecret(owner, storedName({ name, sandbox }));
    if (this.#records.get(key) !== record) return; // put again meanwhile
    this.#values.delete(key);
    this.#records.delete(key);
  }

  #made(
    owner: string,
    input: SecretInput,
    before: SecretRecord | undefined,
    sandbox: string | undefined,
  ): { record: SecretRecord; value: string | undefined } {
    const { name, value, file, variable } = input;
    if (!SECRET_NAME.test(name)) {
      throw new StacyError("invalid", `${JSON.stringify(name.slice(0, 128))} is no name for a secret`, {
        remedy: "name it as a variable: letters, digits and _",
      });
    }
    if (before === undefined) checkVariable(name, name);
    const given = [value, file, variable].filter((each) => each !== undefined);
    if (given.length > 1 || (given.length === 0 && before === undefined)) {
      throw new StacyError("invalid", `the secret ${name} needs one of value, file and variable`);
    }
    // Whoever could send a value that he does not have elsewhere would have it.
    const elsewhere = (["hosts", "placement"] as const).some(
      (field) => input[field] !== undefined && !isDeepStrictEqual(input[field], before?.[field]),
    );
    if (given.length === 0 && elsewhere) {
      throw new StacyError("invalid", `where the secret ${name} goes can only be changed together with its value`);
    }
    const hosts = input.hosts ?? before?.hosts ?? [];
    hostsOf(hosts);
    const placeholder = input.placeholder ?? before?.placeholder ?? placeholderOf(owner, name);
    if (!PLACEHOLDER.test(placeholder)) {
      throw new StacyError("invalid", "a placeholder has 8 to 256 letters, digits and . _ ~ -");
    }
    const known = value ?? (given.length === 0 ? this.#values.get(keyOf(before ?? { owner, name })) : undefined);
    if (known !== undefined && placeholder.includes(known)) {
      throw new StacyError("invalid", `the placeholder of the secret ${name} has its value in it`, {
        remedy: "programs see the placeholder: leave it out, and one is made",
      });
    }
    const source: SecretSource =
      value !== undefined
        ? { kind: "value" }
        : file !== undefined
          ? { kind: "file", path: file }
          : variable !== undefined
            ? { kind: "environment", variable }
            : (before?.source ?? { kind: "value" });
    const now = this.#parts.clock.now();
    const everywhere = input.everywhere ?? before?.everywhere === true;
    const record: SecretRecord = {
      ...{ owner, name, hosts, placeholder, source },
      placement: checkPlacement(input.placement ?? before?.placement ?? { kind: "bearer" }),
      ...(sandbox === undefined ? {} : { sandbox }),
      ...(everywhere && sandbox === undefined ? { everywhere } : {}),
      ...(given.length === 0 && before?.sealed !== undefined ? { sealed: before.sealed } : {}),
      createdAt: before?.createdAt ?? now,
      updatedAt: now,
    };
    return { record, value: value === undefined ? undefined : checkValue(value) };
  }

  async #read(key: string): Promise<{ value: string } | { missing: string }> {
    const source = this.#records.get(key)?.source;
    if (source === undefined) return { missing: "it was deleted" };
    if (source.kind === "value") {
      const value = this.#values.get(key);
      return value === undefined ? { missing: "the server was started anew, and does not keep it" } : { value };
    }
    try {
      return { value: checkValue(await outside(source)) };
    } catch {
      return { missing: source.kind === "file" ? "its file cannot be used" : "its variable is not set" };
    }
  }

  #info({ sealed, ...record }: SecretRecord): SecretInfo {
    const kept = record.source.kind !== "value" || sealed !== undefined;
    return { ...record, available: record.source.kind !== "value" || this.#values.has(keyOf(record)), kept };
  }
}

/** @throws StacyError `invalid` for what is no variable, and for one whose own value a sandbox needs */
export function checkVariable(variable: string, secret: string): void {
  const remedy = "name it otherwise, after what it is for";
  if (/[=\p{C}]/u.test(variable))
    throw new StacyError(
      "invalid",
      `the secret ${secret} cannot be in ${JSON.stringify(variable)}: that is no variable`,
      {
        remedy,
      },
    );
  if (SYSTEM_VARIABLE.test(variable) || Object.hasOwn(TRUST_ENVIRONMENT, variable))
    throw new StacyError(
      "invalid",
      `the secret ${secret} cannot be in ${variable}: a sandbox needs that variable itself`,
      { remedy },
    );
}

/** By the variable that each is in. @throws StacyError `invalid` where that is none, or another secret's */
export function byVariable<T extends { name: string }>(
  secrets: readonly T[],
  variableOf: (secret: T) => string,
): Map<string, T> {
  const found = new Map<string, T>();
  for (const secret of secrets) {
    const { name } = secret;
    const variable = variableOf(secret);
    checkVariable(variable, name);
    const other = found.get(variable)?.name ?? name;
    if (other !== name)
      throw new StacyError("invalid", `the secrets ${other} and ${name} cannot both be in ${variable}`, {
        remedy: "give each a variable of its own with inject_at",
      });
    found.set(variable, secret);
  }
  return found;
}

async function outside(source: Exclude<SecretSource, { kind: "value" }>): Promise<string> {
  if (source.kind === "environment") return process.env[source.variable] ?? "";
  const text = await readFile(source.path, "utf8");
  if (text.length > MOST_FILE_BYTES) throw new StacyError("invalid", "a secret's file is too long");
  return text.replace(/\r?\n$/, "");
}

const parsed = new Map<string, SecretHosts>();
/** Asked for with each connection of a sandbox, so the last ones are remembered. */
function hostsOf(list: readonly string[]): SecretHosts {
  const key = list.join("\n");
  const known = parsed.get(key);
  if (known !== undefined) return known;
  const hosts = new SecretHosts(list);
  if (parsed.size >= 1_024) parsed.clear();
  parsed.set(key, hosts);
  return hosts;
}

/** Hosts that a sandbox must be able to connect to, to use these. */
export function hostsToAllow(secrets: readonly SecretRecord[]): string[] {
  return [...new Set(secrets.flatMap(({ hosts }) => hostsOf(hosts).allowed))];
}

/** The same each time, so that what is made from a template with it is the same. It is no secret. */
function placeholderOf(owner: string, name: string): string {
  return `placeholder-${createHash("sha256").update(`${owner}\0${name}`).digest("hex").slice(0, 24)}`;
}

function storedName({ name, sandbox }: { name: string; sandbox?: string | undefined }): string {
  return sandbox === undefined ? name : `${sandbox}/${name}`;
}

function keyOf(record: { owner: string; name: string; sandbox?: string | undefined }): string {
  return `${record.owner}\0${storedName(record)}`;
}

function unknown(name: string): StacyError {
  return new StacyError("not-found", `there is no secret ${JSON.stringify(name.slice(0, 128))}`, {
    remedy: "see `stacyvm secret ls`",
  });
}
