import { randomBytes, randomUUID } from "node:crypto";
import type { Identity } from "../guest/agent.ts";
import type { Image } from "../images/image.ts";

/** Where commands run when the image does not say. The agent creates it. */
export const DEFAULT_CWD = "/workspace";

/**
 * The names and the fresh randomness of one sandbox.
 * @param env the caller's, on top of the image's
 * @param options.thaw the machine was saved with its processes frozen
 * @param options.network its programs' connections are taken, for its egress to judge
 */
export function makeIdentity(
  id: string,
  image: Pick<Image, "config">,
  env: Record<string, string>,
  options: { thaw?: boolean; network?: boolean } = {},
): Identity {
  return {
    sandboxId: id,
    hostname: id,
    machineId: randomBytes(16).toString("hex"),
    bootId: randomUUID(),
    entropy: randomBytes(64),
    env: { ...imageEnv(image), ...env },
    cwd: image.config.cwd === undefined || image.config.cwd === "" ? DEFAULT_CWD : image.config.cwd,
    ...options,
    ...(image.config.user === undefined || image.config.user === "" ? {} : { user: image.config.user }),
  };
}

function imageEnv(image: Pick<Image, "config">): Record<string, string> {
  const env: Record<string, string> = {};
  for (const entry of image.config.env) {
    const at = entry.indexOf("=");
    if (at > 0) env[entry.slice(0, at)] = entry.slice(at + 1);
  }
  return env;
}
