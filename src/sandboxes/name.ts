/**
 * A sandbox's name: what its owner calls it. It stands wherever its id may, so it must never be taken for one; it is in lower case,
 * since browsers write host names so and a preview's begins with it (`8080-web.localhost`; one with `.` or `_` has none).
 */
import { StacyError } from "../host/error.ts";

const SANDBOX_NAME = /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/;

/** Ids with and without their beginning, and words that stand in the place of an id in the API's paths. */
const TAKEN = /^(?:(?:sb|cp)-.*|[0-9a-f]{8}|stats|admission)$/;

/** `undefined` and the empty string are none. @throws StacyError `invalid` */
export function checkSandboxName(name: string | undefined): string | undefined {
  if (name === undefined || name === "") return undefined;
  const shown = JSON.stringify(name.slice(0, 80));
  if (!SANDBOX_NAME.test(name)) {
    throw new StacyError("invalid", `name: ${shown} is not a sandbox's name`, {
      remedy: "use at most 63 lower-case letters, digits, and . _ - between them, for example web-1",
    });
  }
  if (TAKEN.test(name)) {
    throw new StacyError("invalid", `name: ${shown} could be taken for something else`, {
      remedy: "choose one that does not look like a sandbox's id and is not stats or admission",
    });
  }
  return name;
}
