/** User names and passwords for registries, from where Docker and Podman keep them. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { StacyError } from "../../host/error.ts";
import { runTool } from "../../host/run.ts";
import { DEFAULT_REGISTRY } from "../reference.ts";

export interface Credentials {
  username: string;
  password: string;
  /** An OAuth2 refresh token instead of a password. */
  identityToken?: string;
}

interface DockerConfig {
  auths?: Record<string, { auth?: string; username?: string; password?: string; identitytoken?: string }>;
  credHelpers?: Record<string, string>;
  credsStore?: string;
}

/** What Docker's file calls its own registry. */
const HUB_KEY = "https://index.docker.io/v1/";
const HELPER_LIMIT_MS = 15_000;

/** `DOCKER_CONFIG` and `REGISTRY_AUTH_FILE` first, as those tools do. */
export function credentialFiles(env: NodeJS.ProcessEnv = process.env): string[] {
  return [
    join(env.DOCKER_CONFIG ?? join(homedir(), ".docker"), "config.json"),
    ...(env.REGISTRY_AUTH_FILE === undefined ? [] : [env.REGISTRY_AUTH_FILE]),
    ...(env.XDG_RUNTIME_DIR === undefined ? [] : [join(env.XDG_RUNTIME_DIR, "containers/auth.json")]),
  ];
}

/** `undefined`: go without. @throws StacyError `invalid` for a damaged file, `unavailable` for a failing helper program */
export async function findCredentials(
  registry: string,
  repository: string,
  files = credentialFiles(),
): Promise<Credentials | undefined> {
  for (const file of files) {
    const config = await readConfig(file);
    if (config === undefined) continue;
    const found = (await fromHelper(config, registry)) ?? fromFile(config, registry, repository);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function readConfig(file: string): Promise<DockerConfig | undefined> {
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as DockerConfig;
  } catch {
    // Without the parser's words: they quote what stands there.
    throw new StacyError("invalid", `${file} is no JSON`, { remedy: "correct the file or log in again" });
  }
}

function fromFile(config: DockerConfig, registry: string, repository: string): Credentials | undefined {
  const names =
    registry === DEFAULT_REGISTRY ? [HUB_KEY, registry] : [registry, `https://${registry}`, `http://${registry}`];
  // Podman's file may be narrower than a host: the longest path that fits wins.
  const parts = repository.split("/");
  const narrow = parts.map((_, index) => `${registry}/${parts.slice(0, parts.length - index).join("/")}`);
  for (const name of [...narrow, ...names]) {
    const entry = config.auths?.[name] ?? config.auths?.[`${name}/`] ?? config.auths?.[`${name}/v1/`];
    if (entry === undefined) continue;
    const identity = entry.identitytoken ? { identityToken: entry.identitytoken } : {};
    if (entry.auth) {
      const text = Buffer.from(entry.auth, "base64").toString("utf8");
      const colon = text.indexOf(":");
      if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1), ...identity };
    }
    if (entry.username && entry.password !== undefined) {
      return { username: entry.username, password: entry.password, ...identity };
    }
    if (entry.identitytoken) return { username: "<token>", password: "", ...identity };
  }
  return undefined;
}

/** Programs `docker-credential-NAME get`: the registry on standard input, JSON on standard output. */
async function fromHelper(config: DockerConfig, registry: string): Promise<Credentials | undefined> {
  const key = registry === DEFAULT_REGISTRY ? HUB_KEY : registry;
  const helper = config.credHelpers?.[registry] ?? config.credHelpers?.[key] ?? config.credsStore;
  if (helper === undefined || helper === "") return undefined;
  if (!/^[\w.-]+$/.test(helper)) throw new StacyError("invalid", `the credential helper ${helper} has an unsound name`);
  let output: Buffer;
  try {
    output = await runTool(`docker-credential-${helper}`, ["get"], {
      input: Buffer.from(key),
      timeoutMs: HELPER_LIMIT_MS,
    });
  } catch (error) {
    // Helpers fail when they know nothing about a registry, in words that differ; anonymous access may well do.
    if (config.credHelpers?.[registry] === undefined) return undefined;
    throw error;
  }
  try {
    const answer = JSON.parse(output.toString("utf8")) as { Username?: string; Secret?: string };
    if (!answer.Username || answer.Secret === undefined) return undefined;
    if (answer.Username === "<token>") {
      return { username: "<token>", password: "", identityToken: answer.Secret };
    }
    return { username: answer.Username, password: answer.Secret };
  } catch {
    // Nor here.
    throw new StacyError("unavailable", `docker-credential-${helper} did not answer with JSON`);
  }
}
