/** The contexts of all sandboxes: which there are says each guest; here are the ones that this process follows. */
import { randomUUID } from "node:crypto";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { Context, type ContextInfo, type ContextOptions, contextsAmong, type FoundContext } from "./context.ts";
import type { Language } from "./language.ts";

/** A sandbox whose contexts are asked for. */
export interface InterpreterGuest {
  /** The sandbox's id. */
  id: string;
  agent: Agent;
  /** What the sandbox was made with, for a context that ran before it was: it has not seen it. */
  env: Record<string, string>;
}

export type NewContext = Omit<ContextOptions, "id"> & { id?: string };

/** A guest may not fill the host's memory with processes to follow. */
const MAX_CONTEXTS = 64;
/** A command line is known to this length, and the description has to be whole. */
const MAX_CWD = 1_024;

export class Contexts {
  /** By sandbox and id. */
  readonly #followed = new Map<string, Map<string, Promise<Context>>>();

  /** Those that run, oldest first. */
  async list({ agent }: InterpreterGuest): Promise<ContextInfo[]> {
    return (await found(agent)).map(({ info }) => info);
  }

  /** @throws StacyError `not-found` */
  async get(guest: InterpreterGuest, id: string): Promise<Context> {
    const followed = await this.#open(guest, id, () => this.#attach(guest, id));
    if (followed !== undefined) return followed;
    throw new StacyError("not-found", `there is no context ${JSON.stringify(id.slice(0, 64))}`);
  }

  /** The one that code without a context runs in: started at its first use, unless the machine was saved with it. */
  async default(guest: InterpreterGuest, options: Omit<ContextOptions, "id">): Promise<Context> {
    const id = options.language;
    const make = async (): Promise<Context> =>
      (await this.#attach(guest, id, options.env)) ?? (await Context.start(guest.agent, { ...options, id }));
    const context = await this.#open(guest, id, make);
    if (context === undefined) throw new StacyError("internal", "a context that is neither there nor made");
    return context;
  }

  async create(guest: InterpreterGuest, { id = randomUUID(), ...options }: NewContext): Promise<Context> {
    if ((options.cwd?.length ?? 0) > MAX_CWD) throw new StacyError("invalid", "cwd: is too long");
    if ((await this.list(guest)).length >= MAX_CONTEXTS) {
      throw new StacyError("limit", `a sandbox has at most ${MAX_CONTEXTS} contexts`, { remedy: "remove some" });
    }
    const made = await this.#open(guest, id, () => Context.start(guest.agent, { ...options, id }));
    if (made === undefined) throw new StacyError("internal", "a context that was not made");
    return made;
  }

  /** @throws StacyError `not-found` */
  async remove(guest: InterpreterGuest, id: string): Promise<void> {
    const context = await this.get(guest, id);
    this.#forget(guest.id, id);
    await context.close();
  }

  /** The same, with nothing of its state. @throws StacyError `not-found` */
  async restart(guest: InterpreterGuest, id: string, options: Pick<ContextOptions, "user" | "env">): Promise<Context> {
    const { info } = await this.get(guest, id);
    await this.remove(guest, id);
    return await this.create(guest, { ...options, ...info });
  }

  /** Once, however many ask for it at the same time. */
  async #open(
    guest: InterpreterGuest,
    id: string,
    make: () => Promise<Context | undefined>,
  ): Promise<Context | undefined> {
    // Looked up anew each time: while one waits, another may have forgotten the sandbox's last context and made the first.
    const of = () => this.#followed.get(guest.id) ?? new Map<string, Promise<Context>>();
    let own = of();
    for (let known = own.get(id); known !== undefined; known = own.get(id)) {
      const context = await known.catch(() => undefined);
      if (context !== undefined && !context.ended) return context;
      if (own.get(id) === known) own.delete(id);
      own = of();
    }
    const making = make().then((context) => {
      if (context === undefined) throw new Absent();
      return context;
    });
    own.set(id, making);
    this.#followed.set(guest.id, own);
    try {
      const context = await making;
      void context.gone.then(() => own.get(id) === making && this.#forget(guest.id, id));
      return context;
    } catch (error) {
      if (own.get(id) === making) this.#forget(guest.id, id);
      if (error instanceof Absent) return undefined;
      throw error;
    }
  }

  /** @param env for one that was saved before anybody asked for it: what it would have been started with */
  async #attach(guest: InterpreterGuest, id: string, env: Record<string, string> = {}): Promise<Context | undefined> {
    const there = (await found(guest.agent)).find(({ info }) => info.id === id);
    return there === undefined ? undefined : await Context.attach(guest.agent, there, { ...guest.env, ...env });
  }

  #forget(sandboxId: string, id: string): void {
    const own = this.#followed.get(sandboxId);
    own?.delete(id);
    if (own?.size === 0) this.#followed.delete(sandboxId);
  }
}

class Absent extends Error {}

async function found(agent: Agent): Promise<FoundContext[]> {
  return contextsAmong(await agent.processes());
}

/** How many of a guest's commands are contexts: one that waits for code is no work of its own. */
export async function countContexts(agent: Agent): Promise<number> {
  return (await found(agent)).length;
}

/** A context that a machine is saved with. */
export interface WarmContext {
  language: Language;
  /** What it runs before, such as imports; nothing that it prints is kept. */
  code: string;
}

/** A limit of its own, of the start and of the code: the first of large libraries takes minutes under emulation on a busy host. */
const WARM_MS = 15 * 60_000;

/** Starts contexts and leaves them to whoever comes next. @throws StacyError `invalid` with the error of the code */
export async function warmContexts(
  agent: Agent,
  contexts: readonly WarmContext[],
  signal?: AbortSignal,
): Promise<void> {
  for (const { language, code } of contexts) {
    const context = await Context.start(agent, { id: language, language }, WARM_MS);
    const limit = AbortSignal.timeout(WARM_MS);
    const stop = signal === undefined ? limit : AbortSignal.any([limit, signal]);
    for await (const event of context.run({ code, env: {}, prepare: true }, stop)) {
      if (event.type !== "error") continue;
      throw new StacyError("invalid", `the code of the ${language} context failed: ${event.traceback}`, {
        phase: "setup",
        remedy: "correct the template's contexts",
      });
    }
    signal?.throwIfAborted();
    await context.detach();
  }
}
