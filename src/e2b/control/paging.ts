/** Lists in pages: the token of the next one is the id of the last of this, and its place in the order. */
import { z } from "zod";
import { StacyError } from "../../host/error.ts";

const MOST = 100;
/** Its place is there where the list has an order by a number: up or down. */
const Token = z.tuple([z.string(), z.number().nullable(), z.boolean()]);

/**
 * @param placeOf by what the list is in order, up or down: without it nothing follows an item that has gone meanwhile
 * @throws StacyError `invalid`
 */
export function pageOf<T extends { id: string }>(
  all: readonly T[],
  limit: string | undefined,
  token: string | undefined,
  placeOf?: (item: T) => number,
): { page: T[]; next: string | undefined } {
  const size = limit === undefined ? MOST : Number(limit);
  if (!Number.isInteger(size) || size < 1) throw new StacyError("invalid", "limit: must be a number from 1");
  const begin = token ? afterToken(all, token, placeOf) : 0;
  const page = all.slice(begin, begin + Math.min(size, MOST));
  const last = page.at(-1);
  if (last === undefined || begin + page.length >= all.length) return { page, next: undefined };
  const [place = null, first = 0, end = 0] =
    placeOf === undefined ? [] : [last, all[0] ?? last, all.at(-1) ?? last].map(placeOf);
  const up = first < end;
  return { page, next: Buffer.from(JSON.stringify([last.id, place, up])).toString("base64url") };
}

function afterToken<T extends { id: string }>(all: readonly T[], token: string, placeOf?: (item: T) => number): number {
  const [id, place, up] = read(token);
  const at = all.findIndex((item) => item.id === id);
  if (at !== -1) return at + 1;
  const follows = (item: T): boolean =>
    placeOf !== undefined && place !== null && (up ? placeOf(item) >= place : placeOf(item) <= place);
  const next = all.findIndex(follows);
  return next === -1 ? all.length : next;
}

function read(token: string): z.output<typeof Token> {
  try {
    return Token.parse(JSON.parse(Buffer.from(token, "base64url").toString("utf8")));
  } catch {
    throw new StacyError("invalid", "the token of the next page is none of this server's");
  }
}
