/** Lists in pages: the token of the next one is the id of the last of this. */
import { StacyError } from "../../host/error.ts";

const MOST = 100;

/** @throws StacyError `invalid` */
export function pageOf<T extends { id: string }>(
  all: readonly T[],
  limit: string | undefined,
  token: string | undefined,
): { page: T[]; next: string | undefined } {
  const size = limit === undefined ? MOST : Number(limit);
  if (!Number.isInteger(size) || size < 1) throw new StacyError("invalid", "limit: must be a number from 1");
  const after = token ? all.findIndex(({ id }) => id === Buffer.from(token, "base64url").toString("utf8")) : -1;
  // The one that the token names is gone: nothing says where to go on.
  if (token && after === -1) return { page: [], next: undefined };
  const page = all.slice(after + 1, after + 1 + Math.min(size, MOST));
  const last = page.at(-1);
  const more = after + 1 + page.length < all.length;
  return { page, next: more && last !== undefined ? Buffer.from(last.id).toString("base64url") : undefined };
}
