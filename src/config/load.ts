/**
 * The configuration: defaults, then a YAML file, then environment variables (`STACYVM_` and the key with `_`, for example
 * `STACYVM_SERVER_PORT`). What only other servers know is ignored with a note, what is wrong names the key and the remedy.
 */
import type { Stats } from "node:fs";
import { open } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { parse as parseYaml } from "yaml";
import { errno, StacyError } from "../host/error.ts";
import { schemaWords } from "../host/schema-words.ts";
import { assertNamedFiles } from "./named-files.ts";
import { isPublishedConfig, isTheirKey } from "./published.ts";
import { type Config, configKeys, configSchema } from "./schema.ts";
import { assertHarmless, whyForeign } from "./working-directory.ts";

/** Set by other parts of StacyVM. */
const FOREIGN_ENV =
  /^STACYVM_(DATA_DIR|CACHE_DIR|SETUP|PROVIDER|URL|SERVER|API_KEY|API_KEY_FILE|CONFIG|ACCEL|AGENT|BACKGROUND|JAILER|FUZZ|TEST_.*|BENCH_.*|KVM.*|QEMU.*|FIRECRACKER.*|.*_PATH|.*_BIN)$/;

export interface LoadedConfig {
  config: Config;
  /** The file that was read, or that `PATCH /config` would create. */
  path: string;
  /** Keys that were ignored. */
  notes: string[];
}

/**
 * @param file an explicit path, which must exist; else `./stacyvm.yaml`, then `~/.stacyvm/config.yaml`, if there
 * @param serves a server is started by it, or it is what is looked at: then the working directory's is heard as a whole
 * @throws StacyError `invalid` naming the key, `permission`
 */
export async function loadConfig(
  options: {
    file?: string;
    env?: NodeJS.ProcessEnv;
    cwd?: string;
    flags?: Record<string, unknown>;
    serves?: boolean;
  } = {},
): Promise<LoadedConfig> {
  const env = options.env ?? process.env;
  const explicit = (options.file ?? env.STACYVM_CONFIG) || undefined;
  const here = resolve(options.cwd ?? process.cwd(), "stacyvm.yaml");
  const candidates = explicit === undefined ? [here, join(homedir(), ".stacyvm", "config.yaml")] : [resolve(explicit)];
  let raw: Record<string, unknown> = {};
  let path = candidates.at(-1) ?? "";
  const notes: string[] = [];
  for (const candidate of candidates) {
    const unnamed = explicit === undefined && candidate === here;
    const found = await readIfThere(candidate).catch((error: unknown) => {
      throw new StacyError("invalid", `cannot read the configuration ${candidate}: ${(error as Error).message}`);
    });
    if (found === undefined && explicit === undefined) continue;
    if (found === undefined) throw new StacyError("invalid", `there is no configuration ${candidate}`);
    const foreign = unnamed ? whyForeign(found.stats) : undefined;
    if (foreign !== undefined) {
      notes.push(`${candidate} is not read: ${foreign}`);
      continue;
    }
    raw = parseConfig(found.content, candidate);
    if (unnamed && options.serves !== true) assertHarmless(raw, candidate);
    path = candidate;
    break;
  }
  // Their file lies where ours would, and a start on it must say more than which of its keys are wrong.
  const published = isPublishedConfig(raw);
  if (published) notes.push(`${path} is a configuration of the published StacyVM; ${MIGRATE(path)}`);
  dropForeign(raw, "", notes);
  const variables = applyEnv(raw, env, notes);
  for (const [key, value] of Object.entries(options.flags ?? {})) {
    if (value === undefined) continue;
    setKey(raw, key, value);
    variables.delete(key);
  }
  const config = validateConfig(raw, path, published ? MIGRATE(path) : undefined, variables);
  await assertNamedFiles(config);
  return { config, path, notes };
}

async function readIfThere(path: string): Promise<{ content: string; stats: Stats } | undefined> {
  try {
    await using file = await open(path);
    return { content: await file.readFile("utf8"), stats: await file.stat() };
  } catch (error) {
    if (errno(error) === "ENOENT") return undefined;
    throw error;
  }
}

const MIGRATE = (path: string): string => `\`stacyvm migrate ${path}\` makes ours of it`;

/**
 * @param source the file
 * @param remedy instead of correcting the file's keys
 * @param from keys that are from elsewhere, and the variables that they are from
 * @throws StacyError `invalid` naming every wrong key
 */
export function validateConfig(
  raw: Record<string, unknown>,
  source: string,
  remedy?: string,
  from: ReadonlyMap<string, string> = new Map(),
): Config {
  const parsed = configSchema.safeParse(raw, { error: schemaWords });
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((issue) => {
    const at = issue.path.join(".");
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => `${at === "" ? key : `${at}.${key}`}: there is no such key`).join("; ");
    }
    return `${at || "(root)"}: ${issue.message}`;
  });
  // What the environment says replaces what the file says: correcting the file would change nothing.
  const variables = [...from].flatMap(([key, variable]) =>
    parsed.error.issues.some(({ path }) => `${path.join(".")}.`.startsWith(`${key}.`)) ? [variable] : [],
  );
  throw new StacyError("invalid", `the configuration is wrong: ${lines.join("; ")}`, {
    phase: "config",
    remedy:
      variables.length > 0
        ? `correct ${variables.join(", ")} in the environment, or unset ${variables.length === 1 ? "it" : "them"} to use the file's or the default`
        : (remedy ??
          `correct ${lines.length === 1 ? "this key" : "these keys"} in ${source || "the environment"}, or remove ${lines.length === 1 ? "it" : "them"} to use the defaults`),
  });
}

/** @throws StacyError `invalid` naming the line */
export function parseConfig(content: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseYaml(content);
  } catch (error) {
    throw new StacyError("invalid", `${path} is not YAML: ${(error as Error).message.split("\n")[0]}`, {
      remedy: "correct the line it names",
    });
  }
  if (value === null || value === undefined) return {};
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new StacyError("invalid", `${path} must hold keys and values`);
  }
  return value as Record<string, unknown>;
}

function dropForeign(node: Record<string, unknown>, prefix: string, notes: string[]): void {
  for (const [key, value] of Object.entries(node)) {
    const path = prefix === "" ? key : `${prefix}.${key}`;
    if (isTheirKey(path)) {
      notes.push(`${path} does not concern this server and is ignored`);
      delete node[key];
    } else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      dropForeign(value as Record<string, unknown>, path, notes);
    }
  }
}

/** @returns the keys that were set, and the variables that set them */
function applyEnv(raw: Record<string, unknown>, env: NodeJS.ProcessEnv, notes: string[]): Map<string, string> {
  const byVariable = new Map(configKeys().map((key) => [`STACYVM_${key.toUpperCase().replaceAll(".", "_")}`, key]));
  byVariable.delete("STACYVM_DATA_DIR"); // read by host/paths.ts, for every command
  byVariable.set("STACYVM_PROVIDER", "providers.default");
  byVariable.set("STACYVM_API_KEY", "auth.api_key");
  const set = new Map<string, string>();
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith("STACYVM_") || value === undefined || value === "") continue;
    const key = byVariable.get(variable);
    if (key !== undefined) {
      setKey(raw, key, scalar(key, value));
      set.set(key, variable);
    } else if (!FOREIGN_ENV.test(variable)) notes.push(`${variable} names no key and is ignored`);
  }
  return set;
}

/** Durations, names and keys stay text, whatever they look like. */
function scalar(key: string, value: string): unknown {
  if (key === "auth.keys" || key === "images.registries" || key.endsWith(".aliases")) {
    try {
      return JSON.parse(value);
    } catch {
      return value; // refused by the schema, with the key's name
    }
  }
  if (key.startsWith("auth.") && !key.endsWith("_enabled")) return value;
  if (/^(true|false)$/.test(value)) return value === "true";
  return /^\d+$/.test(value) && !isDuration(key) ? Number(value) : value;
}

function isDuration(key: string): boolean {
  return /(ttl|timeout|grace|interval|unused|heartbeat)$/.test(key);
}

function setKey(raw: Record<string, unknown>, key: string, value: unknown): void {
  const parts = key.split(".");
  const last = parts.pop() ?? "";
  let node = raw;
  for (const part of parts) {
    const next = node[part];
    if (typeof next !== "object" || next === null || Array.isArray(next)) node[part] = {};
    node = node[part] as Record<string, unknown>;
  }
  node[last] = value;
}
