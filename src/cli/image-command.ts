/** What `run` starts: the words of the command line, or what the image says of its own command. */
import { signalNumber } from "../guest/signal-number.ts";
import { StacyError } from "../host/error.ts";

export interface ImageCommand {
  argv: string[];
  /** The image's own command alone is asked to end by the image's signal. */
  stopSignal?: number;
  /** Of the image's own command, where the image names no directory: the root, as container engines have it. */
  cwd?: string;
}

/** @throws StacyError `invalid` when neither says what to run */
export function imageCommand(
  image: string,
  argv: string[],
  config:
    | {
        entrypoint: string[];
        cmd: string[];
        stopSignal?: string | undefined;
        /** Of the two names the one that the caller's form has. */
        cwd?: string | undefined;
        workdir?: string | undefined;
      }
    | undefined,
): ImageCommand {
  if (argv.length > 0) return { argv };
  const own = [...(config?.entrypoint ?? []), ...(config?.cmd ?? [])];
  if (own.length === 0) {
    throw new StacyError("invalid", `${image} names no command`, { remedy: "give one after --" });
  }
  const stopSignal = signalNumber(config?.stopSignal ?? "");
  const named = config?.cwd || config?.workdir;
  return {
    argv: own,
    ...(stopSignal === undefined ? {} : { stopSignal }),
    ...(named ? {} : { cwd: "/" }),
  };
}
