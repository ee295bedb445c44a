/**
 * Variables in the steps of a template. E2B hands such a step to a shell, where variables are replaced while quotes, backslashes,
 * `$(command)` and backticks stay as they are (its infra repository, build/commands/env.go); here our Dockerfile builder replaces them, and
 * nothing is run for it. `\$` is a dollar, as in a Dockerfile.
 */
import { variablesOf } from "../../builder/configuration.ts";
import { substitute } from "../../builder/dockerfile/substitute.ts";
import { BUILD_BOUNDS } from "../../host/bounds.ts";
import type { StacyError } from "../../host/error.ts";
import type { ImageConfig } from "../../images/image.ts";

/** Where a variable stands: whose step it is, and how an error of it begins. */
export interface At {
  user: string;
  fail: (why: string) => StacyError;
}

/** Whose home is known before a step is done. */
const HOMES = new Map([
  ["root", "/root"],
  ["0", "/root"],
  ["user", "/home/user"],
]);

export class StepVariables {
  readonly #known: Map<string, string>;
  /** Not only mistakes are looked for. */
  readonly complete: boolean;
  #left: number = BUILD_BOUNDS.work;

  /** @param root configuration of the image that the template begins with; `undefined`: only to find mistakes */
  constructor(root: ImageConfig | undefined) {
    this.#known = root === undefined ? new Map() : variablesOf(root);
    this.complete = root !== undefined;
  }

  /** @throws StacyError `invalid`, by `fail` */
  expand(text: string, { user, fail }: At): string {
    if (!text.includes("$")) return text;
    return substitute(text.replace(/\\(?!\$)/g, "\\\\"), {
      variables: { get: (name) => this.#known.get(name) ?? this.#ofUser(name, user, fail) },
      escapeChar: "\\",
      quotes: true,
      lenient: !this.complete,
      fail,
      // They may hold one another: a few steps can ask for any amount of work.
      spend: (work) => {
        this.#left -= work;
        if (this.#left < 0) throw fail("the variables of all steps become too long");
      },
    });
  }

  /** All of one step at once: none of them sees another. */
  set(values: Readonly<Record<string, string>>): void {
    for (const [name, value] of Object.entries(values)) this.#known.set(name, value);
  }

  /** What the image does not say, and each user has. */
  #ofUser(name: string, who: string, fail: At["fail"]): string | undefined {
    const [user = ""] = who.split(":", 1);
    if (name === "USER") return user;
    if (name !== "HOME" || !this.complete) return undefined;
    const home = HOMES.get(user);
    if (home === undefined) throw fail(`the home of the user ${user} is not known before it is built: write its path`);
    return home;
  }
}
