/** `.dockerignore` (docs.docker.com, "Build context"): which files of a directory a build does not get to see. */
import dockerignore from "@balena/dockerignore";
import { StacyError } from "../host/error.ts";

export type Ignores = (path: string) => boolean;

/**
 * @param text of the file; later lines win, `!` keeps
 * @returns takes a path relative to the context, without `./`
 * @throws StacyError `invalid` for a pattern that is none
 */
export function ignoreRules(text: string, file = ".dockerignore"): Ignores {
  const rules = dockerignore.default({ ignorecase: false });
  for (const [i, line] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const pattern = line.trim();
    if (pattern === "" || line.startsWith("#")) continue;
    const fail = (cause?: unknown): StacyError =>
      new StacyError("invalid", `line ${i + 1} of ${file}: ${pattern} is no pattern`, {
        ...(cause === undefined ? {} : { cause }),
        remedy: "write a backslash before a character that means itself",
      });
    if (pattern === "!") throw fail();
    try {
      // The library makes a regular expression of it when it is first asked.
      dockerignore.default({ ignorecase: false }).add(literal(pattern)).ignores("a");
    } catch (cause) {
      throw fail(cause);
    }
    rules.add(literal(pattern));
  }
  // Its memory of answers is an object, where a file `constructor` would find more than it should; we ask once for each path.
  const asked = rules as unknown as { _test(path: string): boolean };
  return (path) => !asked._test(path);
}

/** The library leaves some characters in its regular expression that are ordinary ones to Docker. */
function literal(pattern: string): string {
  return pattern.replace(/\\[\s\S]|\[\^|[+(){}|^]/g, (found) => (found.length > 1 ? found : `\\${found}`));
}
