/**
 * A context: a process of the guest that keeps its state from one piece of code to the next. What there is to know of it stands
 * on its command line, so it is found again by whoever connects to the guest: after a restart of the server, in a copy of the
 * machine, in one that was saved with it.
 */
import { randomBytes } from "node:crypto";
import type { Agent, Command, ProcessInfo } from "../guest/agent.ts";
import { isThere } from "../guest/exists.ts";
import { StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import { driverOf, kindOf, type Language, languageOf } from "./language.ts";
import type { CodeEvent, CodeRequest, Conversation } from "./wire.ts";

export interface ContextInfo {
  /** The default one of a language has its name. */
  id: string;
  language: Language;
  /** Where it began; absent: the sandbox's default directory. */
  cwd?: string;
}

export interface ContextOptions extends ContextInfo {
  user?: string;
  env?: Record<string, string>;
}

const FOLDER = "/run/stacyvm-interpreter";
const INTERRUPT = 2;
const KILL = 9;
/** How long a piece of code may go on after its interruption. */
const GRACE_MS = 8_000;
/** For a process to answer at all, also under emulation beside others. */
const BEGIN_MS = 60_000;
/** For a killed one to be gone. */
const END_MS = 5_000;

export class Context {
  readonly info: ContextInfo;
  readonly #command: Command;
  readonly #conversation: Conversation;
  readonly #events: AsyncGenerator<CodeEvent>;
  /** Settles when it cannot be used here any longer: it has ended, or its channel has broken. */
  readonly gone: Promise<void>;
  #turn: Promise<unknown> = Promise.resolve();
  #ended = false;

  private constructor(info: ContextInfo, command: Command) {
    this.info = info;
    this.#command = command;
    this.#conversation = kindOf(info.language).wire();
    this.#events = eventsOf(command, this.#conversation);
    const ended = (): void => {
      this.#ended = true;
    };
    this.gone = command.exited.then(ended, ended);
  }

  /**
   * @param beginMs until it answers
   * @throws StacyError `not-supported` in an image without the language's program, `invalid` for a directory that is not there
   */
  static async start(agent: Agent, options: ContextOptions, beginMs = BEGIN_MS): Promise<Context> {
    const { user, env = {}, ...info } = options;
    const { program, options: flags, driver } = kindOf(info.language);
    const path = `${FOLDER}/${driver}`;
    await agent.writeFile(path, await driverOf(info.language), { mode: 0o644 });
    const command = await agent
      .start({
        argv: [program, ...flags, path, info.language, JSON.stringify(info)],
        env: { PYTHONIOENCODING: "utf-8", ...env },
        stdin: true,
        ...(info.cwd === undefined ? {} : { cwd: info.cwd }),
        ...(user === undefined ? {} : { user }),
      })
      .catch(async (cause) => {
        if (!(cause instanceof StacyError) || cause.code !== "not-found") throw cause;
        const { cwd } = info;
        if (cwd !== undefined && !(await isThere(agent, cwd))) {
          throw new StacyError("invalid", `cwd: the sandbox has no directory ${cwd}`, {
            cause,
            remedy: "make it first",
          });
        }
        throw new StacyError("not-supported", `the sandbox's image has no ${program} (${cause.message})`, { cause });
      });
    return await Context.#begin(info, command, {}, beginMs);
  }

  /** One that runs. A piece of code that nobody follows any longer is interrupted. @param env set in it for good */
  static async attach(agent: Agent, found: FoundContext, env: Record<string, string> = {}): Promise<Context> {
    const command = await agent.attach(found.process);
    await command.kill(INTERRUPT);
    return await Context.#begin(found.info, command, env, BEGIN_MS);
  }

  static async #begin(
    info: ContextInfo,
    command: Command,
    env: Record<string, string>,
    beginMs: number,
  ): Promise<Context> {
    const context = new Context(info, command);
    const limit = setTimeout(() => void context.close(), beginMs);
    try {
      const seed = randomBytes(32).toString("hex");
      await command.write(context.#conversation.begin({ env, seed }));
      while ((await context.#next()).type !== "begun");
      return context;
    } catch (cause) {
      await context.close();
      throw new StacyError("unavailable", `the ${info.language} interpreter did not start`, { cause });
    } finally {
      clearTimeout(limit);
    }
  }

  get ended(): boolean {
    return this.#ended;
  }

  /**
   * What a piece of code does, as it comes; pieces run one after another. A reader that goes away interrupts it.
   * @throws StacyError `unavailable` when the process ends, `invalid`
   */
  async *run(request: CodeRequest, signal: AbortSignal): AsyncGenerator<CodeEvent> {
    const before = this.#turn;
    const turn = Promise.withResolvers<void>();
    this.#turn = turn.promise;
    await before;
    let open = false;
    let stopping: Disposable | undefined;
    const interrupt = (): void => {
      stopping ??= this.#interrupt();
    };
    try {
      if (signal.aborted) return;
      const asked = this.#conversation.ask(request);
      open = true;
      signal.addEventListener("abort", interrupt, { once: true });
      await this.#command.write(asked);
      while (open) {
        const event = await this.#next();
        if (event.type === "end") open = false;
        yield event;
      }
    } finally {
      signal.removeEventListener("abort", interrupt);
      if (open && !this.#ended) {
        // The reader is gone in the middle of it. What it still tells is read, so that the next piece begins anew.
        interrupt();
        await this.#rest();
      }
      stopping?.[Symbol.dispose]();
      turn.resolve();
    }
  }

  async #rest(): Promise<void> {
    try {
      while ((await this.#next()).type !== "end");
    } catch {
      // It has ended, and the next use is told so.
    }
  }

  /** Asks what runs to end, again for one that was just not listening, and ends the process of one that does not. */
  #interrupt(): Disposable {
    const ask = (): void => void this.#command.kill(INTERRUPT).catch(() => {});
    ask();
    const again = setInterval(ask, GRACE_MS / 4);
    const limit = setTimeout(() => void this.close(), GRACE_MS);
    return {
      [Symbol.dispose]: () => {
        clearInterval(again);
        clearTimeout(limit);
      },
    };
  }

  async #next(): Promise<CodeEvent> {
    const { value, done } = await this.#events.next();
    if (done !== true) return value;
    this.#ended = true;
    throw new StacyError("unavailable", "the interpreter's process has ended", {
      remedy: "run the code again: the default context begins anew, another one has to be made again",
    });
  }

  /** It goes on, for whoever attaches to it next. */
  async detach(): Promise<void> {
    this.#ended = true;
    await this.#command.detach();
  }

  async close(): Promise<void> {
    this.#ended = true;
    await this.#command.kill(KILL).catch(() => {});
    const late = (): StacyError => new StacyError("timeout", "the interpreter's process does not end");
    await withTimeLimit(this.gone, END_MS, late).catch(() => {}); // its channel may be what is gone
  }
}

async function* eventsOf(command: Command, conversation: Conversation): AsyncGenerator<CodeEvent> {
  for await (const event of command.output()) yield* conversation.read(event);
}

export interface FoundContext {
  /** The agent's number of its process. */
  process: string;
  info: ContextInfo;
}

/** The contexts among a guest's commands, oldest first. */
export function contextsAmong(processes: readonly ProcessInfo[]): FoundContext[] {
  return processes.flatMap(({ id, command, running }) => {
    const [, language, description] =
      /^\S+(?: -\S+)* \/run\/stacyvm-interpreter\/\S+ (\w+) (\{.*\})$/s.exec(command) ?? [];
    if (!running || language === undefined || description === undefined) return [];
    try {
      const { id: name, cwd } = JSON.parse(description) as { id: unknown; cwd: unknown };
      if (typeof name !== "string") return [];
      const info = { id: name, language: languageOf(language), ...(typeof cwd === "string" ? { cwd } : {}) };
      return [{ process: id, info }];
    } catch {
      return []; // something of the guest's own that looks like one
    }
  });
}
