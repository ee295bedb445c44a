import { asStacyError, StacyError } from "../host/error.ts";

/** What the guest says of a volume that it cannot mount is about the volume, and not about the request or the server. */
export function volumeError(thrown: unknown): StacyError {
  const error = asStacyError(thrown);
  if (error.code === "invalid") return new StacyError("conflict", error.message, { cause: error });
  if (error.code !== "internal") return error;
  return new StacyError("corrupt", error.message, {
    cause: error,
    remedy: "restore it from a snapshot, or export it and look at it with e2fsck",
  });
}
