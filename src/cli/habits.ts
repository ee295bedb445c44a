/**
 * Words that people bring along from Docker, fly and others, and what they are called here. A wrong word gets this hint instead of
 * a guess by spelling, which would lead from `deploy` to `destroy`.
 */
import { ownValue } from "../host/own-value.ts";

export const HABITS: Record<string, string> = {
  build: "`stacyvm image build DIR -t NAME` builds an image",
  commit: "`stacyvm checkpoint ID` saves a sandbox",
  delete: "`stacyvm rm ID` removes a sandbox",
  deploy: "`stacyvm spawn IMAGE` starts a sandbox",
  destroy: "`stacyvm rm ID` removes a sandbox",
  diff: "`stacyvm files ls -r ID /` lists the files that a sandbox has now",
  new: "`stacyvm spawn IMAGE` starts a sandbox",
  port: "`stacyvm url ID PORT` prints the preview URL of a port, `stacyvm forward ID PORT` connects a port of this host",
  rename: "a sandbox keeps its name; `stacyvm spawn --name NAME IMAGE` gives it one",
  restart: "`stacyvm suspend ID` and `stacyvm resume ID` keep programs where they were",
  start: "`stacyvm spawn IMAGE` starts a new sandbox, `stacyvm resume ID` one that is paused or suspended",
  stop: "`stacyvm suspend ID` keeps it on disk, with its programs; `stacyvm resume ID` brings it back",
  tag: "`stacyvm image tag IMAGE NAME` names an image",
  ui: "`stacyvm serve` has the console at /ui/",
  uninstall:
    "`stacyvm rm --all` removes sandboxes; what else there is lies in one directory, which `stacyvm doctor` names",
  up: "`stacyvm serve` runs the server, `stacyvm spawn IMAGE` starts a sandbox",
  update: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  upgrade: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  volume: "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  wait: "`stacyvm logs -f ID` goes on until the program has ended",
  "web-ui": "`stacyvm serve` has the console at /ui/",
  worker: "`stacyvm serve` runs the whole server on this machine; no other joins it",
};

/** Options of `docker run`, and what does the same here. */
export const OPTION_HABITS: Record<string, string> = {
  "-d": "`stacyvm spawn --start IMAGE` starts a sandbox that stays, with the image's command; or `stacyvm spawn IMAGE`, then `stacyvm exec -d ID -- COMMAND`",
  "--detach":
    "`stacyvm spawn --start IMAGE` starts a sandbox that stays, with the image's command; or `stacyvm spawn IMAGE`, then `stacyvm exec -d ID -- COMMAND`",
  "-v": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "--volume": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "--mount": "no directory of the host can be mounted: `stacyvm cp DIR ID:/PATH` copies one in, and back",
  "--publish": "`stacyvm forward ID PORT` reaches a port; with `stacyvm serve` it is at http://PORT-ID.localhost:7423/",
  "--net": "a sandbox has no network by itself; --allow HOST names a host that it may connect to",
  "--name":
    "what `stacyvm run` starts is gone with its command; `stacyvm spawn --name NAME IMAGE` starts one that stays",
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
  if (option !== undefined && /^stacyvm (run|spawn|create)$/.test(path)) {
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
