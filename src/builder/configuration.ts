/** An image's configuration while steps are done: what a step says about processes needs no machine. */
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { DEFAULT_PATH } from "../images/content.ts";
import type { ImageConfig } from "../images/image.ts";
import type { Step } from "./plan.ts";

/** Each step costs what it says itself, however much is there already: whoever writes a build chooses both. */
export class Configuration {
  readonly env: string[];
  cwd: string | undefined;
  user: string | undefined;
  readonly #base: ImageConfig;
  /** Where each variable stands in `env`. */
  readonly #places = new Map<string, number>();
  #entrypoint: string[];
  #cmd: string[];
  #ownCmd = false;
  readonly #labels: Record<string, string>;
  readonly #exposedPorts: Set<string>;
  readonly #volumes: Set<string>;
  #stopSignal: string | undefined;
  readonly #onBuild: string[] = [];

  constructor(base: ImageConfig) {
    this.#base = base;
    this.env = [...base.env];
    this.cwd = base.cwd;
    this.user = base.user;
    // Of two with one name the first is meant.
    for (const [at, entry] of this.env.entries()) {
      const [name = ""] = entry.split("=", 1);
      if (!this.#places.has(name)) this.#places.set(name, at);
    }
    this.#entrypoint = base.entrypoint;
    this.#cmd = base.cmd;
    this.#labels = { ...base.labels };
    this.#exposedPorts = new Set(base.exposedPorts);
    this.#volumes = new Set(base.volumes);
    this.#stopSignal = base.stopSignal;
  }

  /** @throws StacyError `invalid` for a working directory that Linux cannot have */
  apply(step: Step): void {
    switch (step.kind) {
      case "env":
        for (const [name, value] of Object.entries(step.env)) this.#setEnv(name, value);
        break;
      case "workdir":
        this.cwd = absolute(this.cwd, step.path);
        if (this.cwd.length > BUILD_BOUNDS.pathLetters)
          throw new StacyError("invalid", `line ${step.line}: the working directory becomes too long`);
        break;
      case "user":
        this.user = step.user;
        break;
      case "cmd":
        this.#cmd = step.argv;
        this.#ownCmd = true;
        break;
      case "entrypoint":
        this.#entrypoint = step.argv;
        // The base's command was meant for the base's entry point (Dockerfile reference, "ENTRYPOINT").
        if (!this.#ownCmd) this.#cmd = [];
        break;
      case "label":
        Object.assign(this.#labels, step.labels);
        break;
      case "expose":
        for (const port of step.ports) this.#exposedPorts.add(port);
        break;
      case "stop-signal":
        this.#stopSignal = step.signal;
        break;
      case "volume":
        for (const path of step.paths) this.#volumes.add(path);
        break;
      case "on-build":
        this.#onBuild.push(step.instruction);
        break;
    }
  }

  /** As it is now. */
  value(): ImageConfig {
    const { onBuild: _done, ...inherited } = this.#base;
    return {
      ...inherited,
      env: [...this.env],
      ...(this.cwd === undefined ? {} : { cwd: this.cwd }),
      ...(this.user === undefined ? {} : { user: this.user }),
      entrypoint: this.#entrypoint,
      cmd: this.#cmd,
      labels: { ...this.#labels },
      ...(this.#stopSignal === undefined ? {} : { stopSignal: this.#stopSignal }),
      exposedPorts: [...this.#exposedPorts],
      ...(this.#volumes.size === 0 ? {} : { volumes: [...this.#volumes] }),
      ...(this.#onBuild.length === 0 ? {} : { onBuild: this.#onBuild.slice() }),
    };
  }

  #setEnv(name: string, value: string): void {
    const at = this.#places.get(name) ?? this.env.length;
    this.#places.set(name, at);
    this.env[at] = `${name}=${value}`;
  }
}

/** An image's environment as its processes have it: of two with one name the first is meant, and there is always a `PATH`. */
export function variablesOf({ env }: ImageConfig): Map<string, string> {
  const entries = env.map((entry): [string, string] => {
    const [name = ""] = entry.split("=", 1);
    return [name, entry.slice(name.length + 1)];
  });
  return new Map([["PATH", DEFAULT_PATH], ...entries.reverse()]);
}

/** The configuration after some steps. */
export function configAfter(base: ImageConfig, steps: readonly Step[]): ImageConfig {
  const configuration = new Configuration(base);
  for (const step of steps) configuration.apply(step);
  return configuration.value();
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
