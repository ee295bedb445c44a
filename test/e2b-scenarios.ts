/** What E2B's clients are seen to do: each scenario passes, is refused by design with 501, or fails. */

export type Outcome = "passed" | "501 by design" | "failed";

export class Scenarios {
  readonly #wanted: (name: string) => boolean;
  readonly #older: boolean;
  /** What an older version does not have. */
  readonly absent: string[] = [];
  readonly results: { name: string; outcome: Outcome; why?: string; ms: number }[] = [];

  /** @param older what the client does not know is left out, and said */
  constructor(wanted: (name: string) => boolean = () => true, older = false) {
    // To look for a fault: only scenarios whose names this matches.
    const only = process.env.STACYVM_E2B_ONLY;
    this.#wanted = only === undefined ? wanted : (name) => new RegExp(only).test(name);
    this.#older = older;
  }

  /** Runs it; a failure is kept, so that one does not hide the others. */
  async run(name: string, work: () => Promise<void>): Promise<void> {
    await this.#keep(name, async () => {
      await work();
      return "passed";
    });
  }

  /** A feature that is not here: the client has to say so in words, the server's or, for what it does not even ask for, its own. */
  async refused(name: string, what: RegExp, work: () => Promise<unknown>): Promise<void> {
    await this.#keep(name, async () => {
      try {
        await work();
      } catch (error) {
        const text = String(error);
        if (/501|this server does not have|requires envd/.test(text) && what.test(text)) return "501 by design";
        throw error;
      }
      throw new Error("it was not refused");
    });
  }

  async #keep(name: string, work: () => Promise<Outcome>): Promise<void> {
    if (!this.#wanted(name)) return;
    const begun = performance.now();
    const add = (outcome: Outcome, why?: string): void => {
      const ms = Math.round(performance.now() - begun);
      this.results.push({ name, outcome, ms, ...(why === undefined ? {} : { why }) });
      // As it comes, where all of it takes long.
      if (process.env.STACYVM_E2B_TRACE || process.env.STACYVM_E2B_PROVIDER)
        process.stderr.write(`${outcome} ${ms} ms ${name} ${why ?? ""}\n`);
    };
    try {
      add(await work());
    } catch (error) {
      if (this.#isAbsent(error)) this.absent.push(name);
      else {
        const { cause } = error as { cause?: unknown };
        const why = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
        add("failed", cause === undefined ? why : `${why} (${String(cause)})`);
      }
    }
  }

  /** A method that this version of the client does not have. */
  #isAbsent(error: unknown): boolean {
    const text = error instanceof TypeError ? error.message : "";
    return this.#older && /is not a function|Cannot (read|destructure)|is not a constructor/.test(text);
  }

  get failed(): string[] {
    return this.results.filter(({ outcome }) => outcome === "failed").map(({ name, why }) => `${name}: ${why}`);
  }

  /** @returns lines for people */
  table(client: string): string {
    const count = (outcome: Outcome): number => this.results.filter((each) => each.outcome === outcome).length;
    const rows = this.results.map(
      ({ name, outcome, ms, why }) =>
        `  ${outcome.padEnd(14)} ${String(ms).padStart(6)} ms  ${name}${why === undefined ? "" : ` (${why.split("\n").slice(0, 6).join(" ")})`}`,
    );
    const sum = `${count("passed")} passed, ${count("501 by design")} refused by design, ${count("failed")} failed`;
    if (this.absent.length > 0) rows.push(`  not in this version: ${this.absent.join("; ")}`);
    return [`${client}: ${this.results.length} scenarios: ${sum}`, ...rows].join("\n");
  }
}
