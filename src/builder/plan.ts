/** What a build does, whichever way it was written down: stages, each an image to begin with and steps in order. */
import type { ImageConfig, RegistryCredentials } from "../images/image.ts";

/** Where a build file is looked for. */
export const BUILD_FILES = ["stacyvm-image.yaml", "Dockerfile"] as const;

/** What is written into the build file itself. */
export interface InlineFile {
  name: string;
  content: string;
}

/** An image (with its registry's credentials of who builds), an earlier stage of the same plan by its number, or nothing (`FROM scratch`). */
export type Origin =
  | { kind: "image"; reference: string; credentials?: RegistryCredentials }
  | { kind: "stage"; stage: number }
  | { kind: "nothing" };

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
      env: Readonly<Record<string, string>>;
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
      /** A text is symbols that change what a file has (file-mode.ts). */
      mode?: number | string;
      /** A source that is a link is copied as one; else it stands for what it leads to. */
      links?: true;
      /** A source that is an archive is unpacked. */
      unpack?: boolean;
    }
  | { kind: "env"; env: Record<string, string> }
  | {
      kind: "workdir";
      path: string;
      /** Of the directories that are made for it, as in a copy; default the user that commands run as there. */
      owner?: string;
    }
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
