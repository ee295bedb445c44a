/**
 * Words that people bring along from Docker, fly and others, and what they are called here. A wrong word gets this hint instead of
 * a guess by spelling, which would lead from `deploy` to `destroy`.
 */
import { ownValue } from "../host/own-value.ts";

export const HABITS: Record<string, string> = {
  attach: "`stacyvm shell ID` opens a shell",
  build: "`stacyvm image build DIR -t NAME` builds an image",
  commit: "`stacyvm checkpoint ID` saves a sandbox",
  create: "`stacyvm spawn IMAGE` starts a sandbox",
  delete: "`stacyvm rm ID` removes a sandbox",
  deploy: "`stacyvm spawn IMAGE` starts a sandbox",
  destroy: "`stacyvm rm ID` removes a sandbox",
  images: "`stacyvm image ls` lists images",
  info: "`stacyvm doctor` says what this host has",
  new: "`stacyvm spawn IMAGE` starts a sandbox",
  port: "`stacyvm forward ID PORT` reaches a port of a sandbox",
  pull: "`stacyvm image pull IMAGE` pulls an image",
  rmi: "`stacyvm image rm IMAGE` removes an image",
  ssh: "`stacyvm shell ID` opens a shell",
  start: "`stacyvm spawn IMAGE` starts a new sandbox, `stacyvm resume ID` one that is paused or suspended",
  stats: "`stacyvm top` shows what each sandbox uses",
  stop: "`stacyvm suspend ID` keeps it on disk, `stacyvm rm ID` removes it",
  tag: "`stacyvm image tag IMAGE NAME` names an image",
  ui: "`stacyvm serve` has the console at /ui/",
  uninstall:
    "`stacyvm rm --all` removes sandboxes; what else there is lies in one directory, which `stacyvm doctor` names",
  up: "`stacyvm serve` runs the server, `stacyvm spawn IMAGE` starts a sandbox",
  update: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  upgrade: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  "web-ui": "`stacyvm serve` has the console at /ui/",
  worker: "`stacyvm serve` runs the whole server on this machine; no other joins it",
};

/** Options of `docker run`, and what does the same here. */
export const OPTION_HABITS: Record<string, string> = {
  "--rm": "`stacyvm run` always removes its sandbox; one of `stacyvm spawn` ends by --ttl, or by `stacyvm rm ID`",
  "-d": "`stacyvm spawn IMAGE` starts a sandbox that stays, and `stacyvm exec -d ID -- COMMAND` a program in it",
  "--detach": "`stacyvm spawn IMAGE` starts a sandbox that stays, and `stacyvm exec -d ID -- COMMAND` a program in it",
  "-v": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "--volume": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "--mount": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "-p": "`stacyvm forward ID PORT` reaches a port; with `stacyvm serve` it is at http://PORT-ID.localhost:7423/",
  "--publish": "`stacyvm forward ID PORT` reaches a port; with `stacyvm serve` it is at http://PORT-ID.localhost:7423/",
  "--network": "a sandbox has no network by itself; --allow HOST names a host that it may connect to",
  "--net": "a sandbox has no network by itself; --allow HOST names a host that it may connect to",
  "--name":
    "what `stacyvm run` starts is gone with its command; `stacyvm spawn --name NAME IMAGE` starts one that stays",
  "--entrypoint": "name the program after the image: `stacyvm run IMAGE -- PROGRAM ARGUMENTS`",
  "--env-file": "-e NAME=VALUE, once for each line of the file",
  "--cpus": "-c NUMBER, or --vcpus",
  "--privileged": "programs are root of a machine of their own: leave it out",
};

/** Commands that take something away for good. Nobody is led to one of them by a similar spelling. */
const DESTRUCTIVE = new Set(["rm", "kill", "gc", "restore"]);

/**
 * Commander's text for a wrong word or option, without a dangerous guess and with what the word is called here.
 * @param path the command below which it stood: `stacyvm`, `stacyvm image`
 */
export function teach(text: string, path: string): string {
  const option = /^error: unknown option '([^'=]*)/.exec(text)?.[1];
  if (option !== undefined && /^stacyvm (run|spawn)$/.test(path)) {
    const hint = ownValue(OPTION_HABITS, option);
    return hint === undefined ? text : `${text.trimEnd()}\nhint: ${hint}\n`;
  }
  const word = /^error: unknown command '([^']*)'/.exec(text)?.[1];
  if (word === undefined) return text;
  const habit = path.includes(" ") ? undefined : ownValue(HABITS, word);
  const guessed = /\n?\(Did you mean (?:one of )?([^?]*)\?\)/.exec(text);
  const dangerous = guessed?.[1]?.split(", ").some((name) => DESTRUCTIVE.has(name));
  const safe = guessed !== null && (habit !== undefined || dangerous) ? text.replace(guessed[0], "") : text;
  return habit === undefined ? safe : `${safe.trimEnd()}\nhint: ${habit}\n`;
}
