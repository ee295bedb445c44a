/** E2B's steps of a template as a plan of our builder: the same image, the same user, the same shell. */
import { z } from "zod";
import { maybe } from "../../api/schemas/common.ts";
import type { Origin, Plan, Step } from "../../builder/plan.ts";
import { BUILD_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { ownValue } from "../../host/own-value.ts";
import type { ImageConfig, RegistryCredentials } from "../../images/image.ts";
import { notThere } from "../error.ts";
import { StepVariables } from "./variables.ts";

export const Instruction = z.object({
  type: z.string().max(64),
  args: maybe(z.array(z.string().max(1 << 20)).max(4_096)),
  force: maybe(z.boolean()),
  filesHash: maybe(z.string().regex(/^[0-9a-f]{1,128}$/)),
});
export type Instruction = z.output<typeof Instruction>;

/** As clients name them; of Google's the name is always the same, and Amazon's keys are none for a registry. */
const Registry = z.discriminatedUnion("type", [
  z.object({ type: z.literal("registry"), username: z.string().min(1).max(4_096), password: z.string().max(65_536) }),
  z.object({ type: z.literal("gcp"), serviceAccountJson: z.string().min(1).max(65_536) }),
  z.object({ type: z.literal("aws") }),
]);

function credentialsOf(registry: z.output<typeof Registry>): RegistryCredentials {
  if (registry.type === "registry") return { username: registry.username, password: registry.password };
  if (registry.type === "gcp") return { username: "_json_key", password: registry.serviceAccountJson };
  throw notThere("credentials of an Amazon registry in a template");
}

export const BuildStart = z.object({
  fromImage: maybe(z.string().max(600)),
  fromTemplate: maybe(z.string().max(600)),
  fromImageRegistry: maybe(Registry),
  force: maybe(z.boolean()),
  steps: maybe(z.array(Instruction).max(BUILD_BOUNDS.steps)),
  startCmd: maybe(z.string().max(65_536)),
  readyCmd: maybe(z.string().max(65_536)),
});
export type BuildStart = z.output<typeof BuildStart>;

/** Images that clients name without being asked to, and that are made here. */
const OWN_IMAGES: Record<string, string> = {
  "e2bdev/base": "stacyvm/base",
  "e2bdev/base:latest": "stacyvm/base",
  "e2bdev/code-interpreter": "stacyvm/code-interpreter",
  "e2bdev/code-interpreter:latest": "stacyvm/code-interpreter",
};

const USER = "user";
/** As E2B makes it in images that have none. */
const ADD_USER = `id ${USER} >/dev/null 2>&1 || {
  if command -v useradd >/dev/null; then useradd -m -s "$(command -v bash || echo /bin/sh)" ${USER}; else adduser -D ${USER}; fi
  mkdir -p /etc/sudoers.d; echo '${USER} ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/${USER}; chmod 440 /etc/sudoers.d/${USER}
}`;
const SHELL = 'if [ -x /bin/bash ]; then exec /bin/bash -e -l -c "$0"; else exec /bin/sh -e -c "$0"; fi';

/**
 * @param imageOf what a template's name stands for
 * @param inherited who the last step of `fromTemplate` named, if a build made it: this one goes on there
 * @throws StacyError `invalid`, E2bError 501
 */
export function planOf(start: BuildStart, imageOf: (template: string) => string, inherited?: string): Plan {
  const { fromImage, fromTemplate, fromImageRegistry, steps = [] } = start;
  const own = fromTemplate !== undefined ? imageOf(fromTemplate) : ownValue(OWN_IMAGES, fromImage ?? "");
  const name = own ?? fromImage;
  if (name === undefined || name === "")
    throw new StacyError("invalid", "fromImage: the template begins with no image");
  // What is here already is asked for nowhere.
  const credentials =
    own === undefined && fromImageRegistry !== undefined ? credentialsOf(fromImageRegistry) : undefined;
  const from: Origin =
    name === "scratch"
      ? { kind: "nothing" }
      : { kind: "image", reference: name, ...(credentials === undefined ? {} : { credentials }) };
  const begin: Step[] = [
    { kind: "user", user: "root", text: "USER root", line: 0 },
    { kind: "run", argv: ["/bin/sh", "-c", ADD_USER], env: {}, text: `the user ${USER}`, line: 0 },
    { kind: "user", user: USER, text: `USER ${USER}`, line: 0 },
    { kind: "workdir", path: `/home/${USER}`, text: `WORKDIR /home/${USER}`, line: 0 },
  ];
  const all = (root: ImageConfig | undefined): Step[] => {
    const variables = new StepVariables(root);
    let user = inherited ?? USER;
    const rest = steps.flatMap((step, i): Step[] => {
      const made = stepsOf(step, i + 1, user, variables);
      for (const each of made) {
        if (each.kind === "user") user = each.user;
        if (each.kind === "env") variables.set(each.env);
      }
      return made;
    });
    return inherited === undefined ? [...begin, ...rest] : rest;
  };
  // Mistakes are the answer to the request, although what `$PATH` stands for is known once the image is there.
  all(undefined);
  return { stages: [{ name: "", from, steps: all }], target: 0 };
}

function stepsOf(step: Instruction, line: number, user: string, variables: StepVariables): Step[] {
  const { type, args = [] } = step;
  const [first = "", second = "", third = "", fourth = ""] = args;
  const text = `${type} ${args.filter((arg) => arg !== "").join(" ")}`;
  const wrong = (what: string): StacyError =>
    new StacyError("invalid", `step ${line}, ${type}: ${what}`, { data: { line } });
  const expand = (value: string): string => variables.expand(value, { user, fail: wrong });
  switch (type.toUpperCase()) {
    case "RUN": {
      const run: Step = { kind: "run", argv: ["/bin/sh", "-c", SHELL, first], env: {}, text, line };
      if (second === "" || second === user) return [run];
      const as = (name: string): Step => ({ kind: "user", user: name, text: `USER ${name}`, line });
      return [as(second), run, as(user)];
    }
    case "COPY": {
      // Among all files those of a copy are a folder of this name (files.ts).
      const folder = step.filesHash;
      if (folder === undefined) throw wrong("its files have no hash");
      if (/^\/|(^|\/)\.\.(\/|$)/.test(first)) throw wrong("a source lies below the template's directory");
      const source = first.replace(/^(\.\/)+/, "");
      const mode = fourth === "" ? undefined : Number.parseInt(fourth, 8);
      if (mode !== undefined && !(mode >= 0 && mode <= 0o7777)) throw wrong(`${fourth} is no mode`);
      return [
        {
          kind: "copy",
          sources: [source === "" || source === "." ? `${folder}/` : `${folder}/${source}`],
          to: expand(second) || ".",
          owner: expand(third) || user,
          ...(mode === undefined ? {} : { mode }),
          // Clients that want what it leads to send that instead of the link.
          links: true,
          ...{ text, line },
        },
      ];
    }
    // Clients take a Dockerfile's ARG for one that stays.
    case "ARG":
    case "ENV": {
      const env: Record<string, string> = {};
      for (let i = 0; i < args.length; i += 2) env[args[i] ?? ""] = expand(args[i + 1] ?? "");
      if (Object.keys(env).some((name) => !/^[^=\0]+$/.test(name))) throw wrong("that is not the name of a variable");
      return [{ kind: "env", env, text: `${type} ${Object.keys(env).join(" ")}`, line }];
    }
    case "WORKDIR":
      return [{ kind: "workdir", path: expand(first), owner: user, text, line }];
    case "USER": {
      const named = expand(first);
      if (named === "" && variables.complete) throw wrong("it names nobody");
      return [{ kind: "user", user: named, text, line }];
    }
    default:
      throw notThere(`the step ${type} of a template`);
  }
}
