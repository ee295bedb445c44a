/** What E2B's clients are seen to do: each scenario passes, is refused by design with 501, or fails. */

export type Outcome = "passed" | "501 by design" | "failed";

export class Scenarios {
  readonly results: { name: string; outcome: Outcome; why?: string; ms: number }[] = [];

  /** Runs it; a failure is kept, so that one does not hide the others. */
  async run(name: string, work: () => Promise<void>): Promise<void> {
    const begun = performance.now();
    const add = (outcome: Outcome, why?: string): void => {
      const ms = Math.round(performance.now() - begun);
      this.results.push({ name, outcome, ms, ...(why === undefined ? {} : { why }) });
    };
    try {
      await work();
      add("passed");
    } catch (error) {
      add("failed", error instanceof Error ? `${error.name}: ${error.message}` : String(error));
    }
  }

  /** A feature that is not here: the client has to say so in words. */
  async refused(name: string, what: RegExp, work: () => Promise<unknown>): Promise<void> {
    const begun = performance.now();
    const ms = (): number => Math.round(performance.now() - begun);
    try {
      await work();
      this.results.push({ name, outcome: "failed", why: "it was not refused", ms: ms() });
    } catch (error) {
      const text = String(error);
      const told = /501|this server does not have/.test(text) && what.test(text);
      this.results.push({ name, outcome: told ? "501 by design" : "failed", ms: ms(), ...(told ? {} : { why: text }) });
    }
  }

  get failed(): string[] {
    return this.results.filter(({ outcome }) => outcome === "failed").map(({ name, why }) => `${name}: ${why}`);
  }

  /** @returns lines for people */
  table(client: string): string {
    const count = (outcome: Outcome): number => this.results.filter((each) => each.outcome === outcome).length;
    const rows = this.results.map(
      ({ name, outcome, ms, why }) =>
        `  ${outcome.padEnd(14)} ${String(ms).padStart(6)} ms  ${name}${why === undefined ? "" : ` (${why.split("\n")[0]})`}`,
    );
    const sum = `${count("passed")} passed, ${count("501 by design")} refused by design, ${count("failed")} failed`;
    return [`${client}: ${this.results.length} scenarios: ${sum}`, ...rows].join("\n");
  }
}
