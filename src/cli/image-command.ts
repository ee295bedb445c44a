/** What `run` starts: the words of the command line, or what the image says of its own command. */
import { signalNumber } from "../guest/signal-number.ts";
import { StacyError } from "../host/error.ts";

export interface ImageCommand {
  argv: string[];
  /** The image's own command alone is asked to end by the image's signal. */
  stopSignal?: number;
}

/** @throws StacyError `invalid` when neither says what to run */
export function imageCommand(
  image: string,
  argv: string[],
  config: { entrypoint: string[]; cmd: string[]; stopSignal?: string | undefined } | undefined,
): ImageCommand {
  if (argv.length > 0) return { argv };
  const own = [...(config?.entrypoint ?? []), ...(config?.cmd ?? [])];
  if (own.length === 0) {
    throw new StacyError("invalid", `${image} names no command`, { remedy: "give one after --" });
  }
  const stopSignal = signalNumber(config?.stopSignal ?? "");
  return { argv: own, ...(stopSignal === undefined ? {} : { stopSignal }) };
}
