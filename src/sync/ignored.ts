/** `.gitignore` as git reads it: each directory's own, those below it going before those above. */
import ignore, { type Ignore } from "ignore";

export const IGNORE_FILE = ".gitignore";

export class Ignored {
  readonly #rules = new Map<string, Ignore>();
  readonly #git: boolean;

  /** @param git whether `.git` belongs to what is synced */
  constructor(git: boolean) {
    this.#git = git;
  }

  /** @param directory "" at the top @param text of its `.gitignore` */
  add(directory: string, text: string): void {
    this.#rules.set(directory, ignore({ allowRelativePaths: false }).add(text));
  }

  has(directory: string): boolean {
    return this.#rules.has(directory);
  }

  /** Of a path whose directory is not ignored. */
  test(path: string, isDirectory: boolean): boolean {
    const names = path.split("/");
    if (!this.#git && names.at(-1) === ".git") return true;
    for (let depth = names.length - 1; depth >= 0; depth--) {
      const rules = this.#rules.get(names.slice(0, depth).join("/"));
      if (rules === undefined) continue;
      const { ignored, unignored } = rules.test(`${names.slice(depth).join("/")}${isDirectory ? "/" : ""}`);
      if (ignored) return true;
      if (unignored) return false;
    }
    return false;
  }
}
