/**
 * Words that people bring along from Docker, fly and others, and what they are called here. A wrong word gets this hint instead of
 * a guess by spelling, which would lead from `deploy` to `destroy`.
 */
import { ownValue } from "../host/own-value.ts";

export const HABITS: Record<string, string> = {
  bash: "`stacyvm shell ID` opens a shell in a sandbox",
  build: "`stacyvm image build DIR -t NAME` builds an image",
  commit: "`stacyvm checkpoint ID` saves a sandbox",
  compose: "no compose file is read: `stacyvm spawn --name NAME IMAGE` starts one sandbox",
  connect: "`stacyvm shell ID` opens a shell in a sandbox",
  container: "`stacyvm ls` lists sandboxes; each is a machine of its own",
  delete: "`stacyvm rm ID` removes a sandbox",
  deploy: "`stacyvm spawn IMAGE` starts a sandbox",
  destroy: "`stacyvm rm ID` removes a sandbox",
  diff: "`stacyvm files ls -r ID /` lists the files that a sandbox has now",
  export: "`stacyvm checkpoint ID` saves a sandbox here; `stacyvm cp ID:/PATH DIR` copies files out of it",
  history: "`stacyvm image inspect IMAGE` tells what an image is, `stacyvm events` what happens to sandboxes",
  launch: "`stacyvm spawn IMAGE` starts a sandbox",
  load: "`stacyvm image import FILE NAME` takes an archive",
  import: "`stacyvm image import FILE NAME` takes an archive",
  login: "`docker login`, `podman login` and `skopeo login` write the file that is read here",
  machine: "`stacyvm ls` lists sandboxes; each is a machine of its own",
  new: "`stacyvm spawn IMAGE` starts a sandbox",
  port: "`stacyvm url ID PORT` prints the preview URL of a port, `stacyvm forward ID PORT` connects a port of this host",
  proxy: "`stacyvm forward ID PORT` connects a port of this host with one in a sandbox",
  prune: "`stacyvm image gc` and `stacyvm snapshot gc` remove what nothing uses; --dry-run lists it",
  push: "images stay on this host: none is sent to a registry",
  remove: "`stacyvm rm ID` removes a sandbox",
  rename: "a sandbox keeps its name; `stacyvm spawn --name NAME IMAGE` gives it one",
  restart: "`stacyvm suspend ID` and `stacyvm resume ID` keep programs where they were",
  sandbox: "`stacyvm spawn IMAGE` starts a sandbox, `stacyvm ls` lists them",
  save: "`stacyvm checkpoint ID` saves a sandbox here; `stacyvm cp ID:/PATH DIR` copies files out of it",
  start: "`stacyvm spawn IMAGE` starts a new sandbox, `stacyvm resume ID` one that is paused or suspended",
  status: "`stacyvm ls` lists sandboxes, `stacyvm doctor` says what this host has",
  stop: "`stacyvm suspend ID` keeps it on disk, with its programs; `stacyvm resume ID` brings it back",
  tag: "`stacyvm image tag IMAGE NAME` names an image",
  ui: "`stacyvm serve` has the console at /ui/",
  uninstall:
    "`stacyvm rm --all` removes sandboxes; what else there is lies in one directory, which `stacyvm doctor` names",
  up: "`stacyvm serve` runs the server, `stacyvm spawn IMAGE` starts a sandbox",
  update: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  upgrade: "npm or git brings a newer StacyVM; sandboxes go on meanwhile",
  wait: "`stacyvm logs -f ID` goes on until the program has ended",
  "web-ui": "`stacyvm serve` has the console at /ui/",
  worker: "`stacyvm serve` runs the whole server on this machine; no other joins it",
};

/** Options of `docker run`, and what does the same here. */
export const OPTION_HABITS: Record<string, string> = {
  "-d": "`stacyvm spawn --start IMAGE` starts a sandbox that stays, with the image's command; or `stacyvm spawn IMAGE`, then `stacyvm exec -d ID -- COMMAND`",
  "--detach":
    "`stacyvm spawn --start IMAGE` starts a sandbox that stays, with the image's command; or `stacyvm spawn IMAGE`, then `stacyvm exec -d ID -- COMMAND`",
  "--mount":
    "-v NAME:/PATH mounts a volume (`stacyvm volume create NAME`), -v ./DIR:/PATH a directory of the host; `stacyvm sync DIR ID:/PATH` keeps one the same without a mount",
  "--publish": "-p PORT prints the URL of a port; `stacyvm forward ID 8080:80` connects port 8080 of this host",
  "--net": "a sandbox has no network by itself; --allow HOST names a host that it may connect to",
  "--name":
    "what `stacyvm run` starts is gone with its command; `stacyvm spawn --name NAME IMAGE` starts one that stays",
  "--cpus": "-c NUMBER, or --vcpus",
  "--privileged": "programs are root of a machine of their own: leave it out",
};

/** Commands that take something away for good. Nobody is led to one of them by a similar spelling. */
export const DESTRUCTIVE: ReadonlySet<string> = new Set(["rm", "rmi", "destroy", "revoke", "kill", "gc", "restore"]);

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
  if (/^error: missing required argument 'id'/.test(text) && path !== "stacyvm checkpoint rm") {
    const inside = path === "stacyvm ps" ? ", `stacyvm ps ID` the commands in one of them" : "";
    return `${text.trimEnd()}\nhint: \`stacyvm ls\` lists the sandboxes${inside}\n`;
  }
  if (/^error: missing required argument 'image'/.test(text) && path === "stacyvm run") {
    return `${text.trimEnd()}\nhint: \`stacyvm run stacyvm/busybox -- echo hello\`; any name of a registry, such as python:3.12-slim, is pulled\n`;
  }
  const word = /^error: unknown command '([^']*)'/.exec(text)?.[1];
  if (word === undefined) return text;
  const habit = path.includes(" ") ? undefined : ownValue(HABITS, word);
  const guessed = /\n?\(Did you mean (?:one of )?([^?]*)\?\)/.exec(text);
  const dangerous = guessed?.[1]?.split(", ").some((name) => DESTRUCTIVE.has(name));
  const safe = guessed !== null && (habit !== undefined || dangerous) ? text.replace(guessed[0], "") : text;
  return habit === undefined ? safe : `${safe.trimEnd()}\nhint: ${habit}\n`;
}
