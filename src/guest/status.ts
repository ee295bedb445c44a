/** The guest's STATUS as the host's errors. */
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { type ErrorCode, StacyError } from "../host/error.ts";
import { printable } from "../host/printable.ts";
import { type FieldReader, Status, Tag } from "./protocol.ts";

const CODES: Record<number, ErrorCode> = {
  [Status.NOT_FOUND]: "not-found",
  [Status.IS_DIRECTORY]: "is-directory",
  [Status.NOT_DIRECTORY]: "not-directory",
  [Status.PERMISSION]: "permission",
  [Status.NO_SPACE]: "no-space",
  [Status.EXISTS]: "conflict",
  [Status.INVALID]: "invalid",
  [Status.NOT_SUPPORTED]: "not-supported",
  [Status.CANCELLED]: "cancelled",
  [Status.LIMIT]: "limit",
  [Status.IO]: "internal",
  [Status.TIMEOUT]: "timeout",
  [Status.NO_PROCESS]: "not-found",
  [Status.REFUSED]: "unavailable",
  [Status.BUSY]: "conflict",
  [Status.NOT_EMPTY]: "not-empty",
  [Status.PROTOCOL]: "protocol",
  [Status.TOO_LARGE]: "too-large",
};

/** Rust's standard library writes the number behind the words; it is in `data`. */
const NUMBER = / \(os error \d+\)/g;

/** The error that `fields` report, or `undefined` for STATUS OK. */
export function failureOf(fields: FieldReader): StacyError | undefined {
  const status = fields.number(Tag.STATUS);
  if (status === Status.OK) return undefined;
  if (status === undefined) return new StacyError("protocol", "the guest sent a result without a status");
  const words = fields.bytes(Tag.MESSAGE)?.toString("utf8", 0, GUEST_BOUNDS.errorBytes);
  const message =
    words === undefined ? `the guest answered with status ${status}` : printable(words.replaceAll(NUMBER, ""));
  const errno = fields.number(Tag.ERRNO);
  return new StacyError(CODES[status] ?? "internal", message, errno === undefined ? {} : { data: { errno } });
}
