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
  return { page, next: tokenOf(last.id, place, first < end) };
}

/** Of the page after this item. @param up whether places grow */
function tokenOf(id: string, place: number | null, up: boolean): string {
  return Buffer.from(JSON.stringify([id, place, up])).toString("base64url");
}

/** An item of several lists that are one, each in the order of places and, of one place, ids: both up, or both down. */
interface Placed {
  id: string;
  at: number;
}

/** How two of them stand to one another. */
export function byPlace(a: Placed, b: Placed, up: boolean): number {
  const order = a.at - b.at || (a.id < b.id ? -1 : 1);
  return up ? order : -order;
}

/**
 * A page of several lists: of each as many items are enough as the page has, from the token on.
 * @returns how many that are, and which of them belong to it @throws StacyError `invalid`
 */
export function pageOfAll(limit: string | undefined, token: string | undefined, up: boolean) {
  const size = Math.min(limit === undefined ? MOST : Number(limit), MOST);
  const [id, at] = token ? read(token) : [];
  const last = id === undefined || at == null ? undefined : { id, at };
  return {
    size,
    /** One that has gone meanwhile leaves those of its place behind. */
    follows: (item: Placed): boolean => last === undefined || byPlace(last, item, up) < 0,
    next: (item: Placed): string => tokenOf(item.id, item.at, up),
  };
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
