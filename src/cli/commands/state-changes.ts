/** `pause`, `suspend`, `resume`, `extend`: another state, or another end, for sandboxes that are there. */
import type { Command } from "commander";
import type { Sandbox, SandboxInfo } from "../../../sdk/src/index.ts";
import { parseDuration } from "../arguments.ts";
import { type ClientOptions, clientCommand, forEachSandbox, withServer } from "../client-command.ts";
import { printJson, printLine } from "../output.ts";
import { stateWords } from "../state-words.ts";

type Change = (sandbox: Sandbox, signal: AbortSignal) => Promise<SandboxInfo>;

async function change(ids: string[], options: ClientOptions, work: Change): Promise<void> {
  await withServer(options, async (session) => {
    const done: SandboxInfo[] = [];
    await forEachSandbox(session, ids, async (sandbox) => {
      const info = await work(sandbox, session.signal);
      done.push(info);
      if (options.json !== true) printLine(`${info.id} ${stateWords(info)}`);
    });
    if (options.json === true) printJson(done);
  });
}

function stateCommand(name: string, description: string, work: Change): Command {
  return clientCommand(name, description)
    .argument("<id...>", "sandboxes")
    .action((ids: string[], options: ClientOptions) => change(ids, options, work));
}

export function pauseCommand(): Command {
  return stateCommand("pause", "stop the processors of sandboxes until `resume`; memory stays", (sandbox, signal) =>
    sandbox.pause({ signal }),
  );
}

export function suspendCommand(): Command {
  return stateCommand("suspend", "save sandboxes to disk and free their memory, until `resume`", (sandbox, signal) =>
    sandbox.suspend({ signal }),
  );
}

export function resumeCommand(): Command {
  return stateCommand("resume", "let paused and suspended sandboxes go on", (sandbox, signal) =>
    sandbox.resume({ signal }),
  );
}

export function extendCommand(): Command {
  return clientCommand("extend", "let a sandbox live for this time from now on")
    .argument("<id>", "the sandbox")
    .argument("<time>", "for example 30m or 2h", parseDuration)
    .action((id: string, ttl: string, options: ClientOptions) =>
      change([id], options, (sandbox, signal) => sandbox.extend(ttl, { signal })),
    );
}
