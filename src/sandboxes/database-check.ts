/**
 * Looks for damage in a database. It reads the whole file, which takes seconds for a large one, so another thread does it with a
 * connection of its own; one at a time, and whoever asks again soon gets the same answer.
 */
import { Worker } from "node:worker_threads";

const LIMIT_MS = 30_000;
const FRESH_MS = 60_000;

// As text: a file of its own would have another name in the published package than here.
const CHECK = `
const { parentPort, workerData } = require("node:worker_threads");
const { DatabaseSync } = require("node:sqlite");
const db = new DatabaseSync(workerData, { readOnly: true, timeout: 5000 });
parentPort.postMessage(Object.values(db.prepare("PRAGMA quick_check(1)").get() ?? { none: "no answer" }).join(" "));
db.close();
`;

export class DatabaseCheck {
  readonly #path: string;
  #answer: Promise<string> | undefined;
  /** When the answer came, by `performance.now()`; absent: it is being looked for. */
  #at: number | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** @returns `ok`, or SQLite's first complaint, or why it could not be checked */
  run(): Promise<string> {
    if (this.#at !== undefined && performance.now() - this.#at > FRESH_MS) this.#answer = undefined;
    this.#answer ??= this.#look();
    return this.#answer;
  }

  async #look(): Promise<string> {
    this.#at = undefined;
    const answer = await look(this.#path);
    this.#at = performance.now();
    // Only good news are worth keeping: damage that was repaired shows at once.
    if (answer !== "ok") this.#answer = undefined;
    return answer;
  }
}

function look(path: string): Promise<string> {
  return new Promise((resolve) => {
    const worker = new Worker(CHECK, { eval: true, workerData: path });
    worker.unref();
    const limit = setTimeout(() => finish(`not checked within ${LIMIT_MS / 1000} s`), LIMIT_MS);
    limit.unref();
    const finish = (answer: string): void => {
      clearTimeout(limit);
      resolve(answer);
      void worker.terminate();
    };
    worker.once("message", (answer: string) => finish(answer));
    worker.once("error", (error: Error) => finish(`not checked: ${error.message}`));
    worker.once("exit", () => finish("not checked: the check ended without an answer"));
  });
}
