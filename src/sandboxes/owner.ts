import { StacyError } from "../host/error.ts";

/** An owner's id as a client sends it. `undefined` and the empty string are none. @throws StacyError `invalid` */
export function checkOwner(owner: string | undefined): string | undefined {
  if (owner === undefined || owner === "") return undefined;
  if (owner.length > 128 || /[\s\u0000-\u001f\u007f/\\]/.test(owner)) {
    throw new StacyError("invalid", "the owner id is not valid", {
      remedy: "use at most 128 characters without white space, slashes or backslashes",
    });
  }
  return owner;
}
