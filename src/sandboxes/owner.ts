/**
 * Two words that clients confuse. The *owner* is whose a thing is: it comes from the key, and is a wall. The *user* is what a
 * client says of itself (`X-User-ID`, `owner_id` in bodies): it counts for quotas within that owner, and keeps nobody out.
 */
import { StacyError } from "../host/error.ts";

/** Whose everything is that no key says otherwise of: configured keys, the server's own user, and rows from before owners. */
export const DEFAULT_OWNER = "default";

export const OWNER_NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;

/** @throws StacyError `invalid` */
export function checkOwnerName(owner: string): string {
  if (OWNER_NAME.test(owner)) return owner;
  throw new StacyError("invalid", `${JSON.stringify(owner.slice(0, 80))} is not an owner's name`, {
    remedy: "use at most 64 letters, digits, and . _ @ - behind the first",
  });
}

/** A user's id as a client sends it. `undefined` and the empty string are none. @throws StacyError `invalid` */
export function checkUser(user: string | undefined): string | undefined {
  if (user === undefined || user === "") return undefined;
  if (user.length > 128 || /[\s\u0000-\u001f\u007f/\\]/.test(user)) {
    throw new StacyError("invalid", "the owner id is not valid", {
      remedy: "use at most 128 characters without white space, slashes or backslashes",
    });
  }
  return user;
}
