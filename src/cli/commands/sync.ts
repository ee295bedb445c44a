import { realpath, stat } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { NotFoundError } from "../../../sdk/src/index.ts";
import { StacyError } from "../../host/error.ts";
import { dataPaths } from "../../host/paths.ts";
import { follow } from "../../sync/follow.ts";
import { type Step, type SyncOptions, syncOnce } from "../../sync/round.ts";
import { There } from "../../sync/there.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { wrappedNote } from "../help-text.ts";
import { note, printJson, printJsonLine, printLine } from "../output.ts";

interface SyncCommandOptions extends ClientOptions {
  watch?: boolean;
  git?: boolean;
  reset?: boolean;
}

/** `stacyvm sync DIR ID:PATH`: both ways, only what differs. */
export function syncCommand(): Command {
  return clientCommand(
    "sync",
    "bring a directory here and one in a sandbox to the same content, both ways: what was changed on one side since the last time goes to the other. What was changed on both is kept twice. What .gitignore names, and .git, is left out",
  )
    .summary("sync a directory with one in a sandbox, both ways")
    .argument("<directory>", "here")
    .argument("<place>", "ID:PATH in a sandbox; it is made")
    .option("-w, --watch", "go on, with every change on either side, until Ctrl-C")
    .option("--git", "with .git")
    .option("--reset", "forget what was synced last: nothing is removed, and what differs is kept twice")
    .addHelpText("after", wrappedNote("For example: stacyvm sync . sb-1a2b3c4d:/work --watch"))
    .action((directory: string, place: string, options: SyncCommandOptions) =>
      withServer(options, async ({ client, signal }) => {
        const { id: wanted, path } = placeOf(place);
        const here = await directoryHere(directory);
        const { id, files } = await findSandbox(client, wanted, signal);
        const top = await files.stat(path, { signal }).catch(async (error: unknown) => {
          if (!(error instanceof NotFoundError)) throw error;
          await files.mkdir(path, { signal });
          return await files.stat(path, { signal });
        });
        if (!top.isDir) {
          throw new StacyError("invalid", `${path} in ${id} is not a directory`, {
            remedy: "name one, or a new place",
          });
        }
        const { reset = false, git = false } = options;
        // Its library is none that other commands should wait for.
        const { openAgreement } = await import("../../sync/agreement.ts");
        await using agreement = await openAgreement(dataPaths().root, [here, id, top.path], { reset });
        const there = new There(files, top.path, agreement.mark, signal);
        await there.settleOwner();
        const report = new Report(options.json === true, options.watch === true);
        const sync: SyncOptions = { here, there, agreement, sandbox: id, git, step: (step) => report.step(step) };
        if (options.watch !== true) {
          await syncOnce(sync);
          return report.end();
        }
        await follow({
          ...sync,
          ...{ client, id, path: top.path, signal },
          waiting: (state) => report.waiting(id, state),
          settled: () => report.settled(here, `${id}:${top.path}`),
        });
      }),
    );
}

function placeOf(text: string): { id: string; path: string } {
  const match = /^([\w-]+):(.+)$/s.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) {
    throw new StacyError("invalid", `${JSON.stringify(text)} is no place in a sandbox`, {
      remedy: "write it as ID:PATH",
    });
  }
  return { id: match[1], path: match[2] };
}

async function directoryHere(name: string): Promise<string> {
  const here = await realpath(resolve(name)).catch((cause: Error) => {
    throw new StacyError("not-found", cause.message, { cause, remedy: "make it first: mkdir" });
  });
  if (!(await stat(here)).isDirectory()) {
    throw new StacyError("invalid", `${name} is not a directory`, { remedy: "copy a file with `stacyvm cp`" });
  }
  return here;
}

const SIGNS: Record<Step["what"], string> = {
  sent: "->",
  fetched: "<-",
  "removed-here": "<- removed",
  "removed-there": "-> removed",
  conflict: "!! changed on both sides:",
  "left-out": "-- left out:",
};

class Report {
  readonly #json: boolean;
  readonly #watches: boolean;
  readonly #steps: Step[] = [];
  readonly #leftOut = new Set<string>();
  #settled = false;

  constructor(json: boolean, watches: boolean) {
    this.#json = json;
    this.#watches = watches;
  }

  step(step: Step): void {
    if (step.what === "left-out") {
      if (this.#leftOut.has(step.path)) return;
      this.#leftOut.add(step.path);
    }
    if (!this.#watches) this.#steps.push(step);
    if (this.#json) {
      if (this.#watches) printJsonLine(step);
      return;
    }
    const more = step.as === undefined ? (step.why ?? "") : `the sandbox's is ${step.as} now`;
    printLine(`${SIGNS[step.what]} ${step.path}${more === "" ? "" : ` (${more})`}`);
  }

  end(): void {
    if (this.#json) {
      printJson(this.#steps);
      return;
    }
    const count = (what: Step["what"]): number => this.#steps.filter((step) => step.what === what).length;
    const removed = count("removed-here") + count("removed-there");
    note(`${count("sent")} sent, ${count("fetched")} fetched, ${removed} removed, ${count("conflict")} kept twice`);
  }

  waiting(id: string, state: string | undefined): void {
    note(state === undefined ? `${id} goes on` : `${id} is ${state}: waiting for it`);
  }

  settled(here: string, there: string): void {
    if (!this.#settled) note(`${here} and ${there} are in sync; waiting for changes`);
    this.#settled = true;
  }
}
