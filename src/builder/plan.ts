/** What a build does, whichever way it was written down: stages, each an image to begin with and steps in order. */
import type { ImageConfig } from "../images/image.ts";

/** Where a build file is looked for. */
export const BUILD_FILES = ["stacyvm-image.yaml", "Dockerfile"] as const;

/** What is written into the build file itself. */
export interface InlineFile {
  name: string;
  content: string;
}

/** An image, an earlier stage of the same plan by its number, or nothing (`FROM scratch`). */
export type Origin = { kind: "image"; reference: string } | { kind: "stage"; stage: number } | { kind: "nothing" };

export type Step = {
  /** As the file says it, for progress and errors. */
  text: string;
  /** Line in the file, from 1. */
  line: number;
} & (
  | {
      kind: "run";
      argv: string[];
      /** Set for this command, but not in the image (a Dockerfile's `ARG`). */
      env: Record<string, string>;
      /** A program of the build file's own, put where `argv` names it. */
      script?: string;
    }
  | {
      kind: "copy";
      /** Paths or patterns in the context, or in `from`. */
      sources: (string | InlineFile)[];
      to: string;
      /** Default: the build's own files. */
      from?: Exclude<Origin, { kind: "nothing" }>;
      /** `user`, `user:group`, names or numbers of the image; default root. */
      owner?: string;
      mode?: number;
      /** A source that is an archive is unpacked. */
      unpack?: boolean;
    }
  | { kind: "env"; env: Record<string, string> }
  | { kind: "workdir"; path: string }
  | { kind: "user"; user: string }
  | { kind: "cmd"; argv: string[] }
  | { kind: "entrypoint"; argv: string[] }
  | { kind: "label"; labels: Record<string, string> }
  | { kind: "expose"; ports: string[] }
  | { kind: "stop-signal"; signal: string }
  | { kind: "volume"; paths: string[] }
  | { kind: "on-build"; instruction: string }
);

/** Where a step's own program lies while it runs: in memory, in no layer. */
export const SCRIPT = "/run/stacyvm-build-step";

export interface Stage {
  /** For messages; empty where there is one stage only. */
  name: string;
  from: Origin;
  /**
   * @param root configuration of the image that the stage begins with; for one that begins with another stage, of the image that
   * this one begins with, and so on: steps may refer to its environment
   */
  steps(root: ImageConfig): Step[];
}

export interface Plan {
  stages: Stage[];
  /** Number of the stage that is the result. */
  target: number;
}

/** The configuration after some steps. A pure function: what a step says about processes needs no machine. */
export function configAfter(base: ImageConfig, steps: readonly Step[]): ImageConfig {
  const { onBuild: _done, ...inherited } = base;
  const config: ImageConfig = { ...inherited, env: [...base.env], labels: { ...base.labels } };
  let ownCmd = false;
  for (const step of steps) {
    switch (step.kind) {
      case "env":
        for (const [name, value] of Object.entries(step.env)) setEnv(config.env, name, value);
        break;
      case "workdir":
        config.cwd = absolute(config.cwd, step.path);
        break;
      case "user":
        config.user = step.user;
        break;
      case "cmd":
        config.cmd = step.argv;
        ownCmd = true;
        break;
      case "entrypoint":
        config.entrypoint = step.argv;
        // The base's command was meant for the base's entry point (Dockerfile reference, "ENTRYPOINT").
        if (!ownCmd) config.cmd = [];
        break;
      case "label":
        Object.assign(config.labels, step.labels);
        break;
      case "expose":
        config.exposedPorts = [...new Set([...config.exposedPorts, ...step.ports])];
        break;
      case "stop-signal":
        config.stopSignal = step.signal;
        break;
      case "volume":
        config.volumes = [...new Set([...(config.volumes ?? []), ...step.paths])];
        break;
      case "on-build":
        config.onBuild = [...(config.onBuild ?? []), step.instruction];
        break;
    }
  }
  return config;
}

function setEnv(env: string[], name: string, value: string): void {
  const at = env.findIndex((entry) => entry.startsWith(`${name}=`));
  if (at === -1) env.push(`${name}=${value}`);
  else env[at] = `${name}=${value}`;
}

/** A path of the image, relative to its working directory; keeps a slash at the end. */
export function absolute(cwd: string | undefined, path: string): string {
  const joined = path.startsWith("/") ? path : `${cwd ?? ""}/${path}`;
  const parts: string[] = [];
  for (const part of joined.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}${/(^|\/)\.?$/.test(path) && parts.length > 0 ? "/" : ""}`;
}
