/** Signals by their names, as images and people write them. Guest and server are both Linux on x86-64. */
import { constants } from "node:os";

/** glibc's and musl's: the kernel's first two real-time signals are theirs. */
const RTMIN = 34;
const RTMAX = 64;

/** `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`. @returns 1 to 64, or `undefined` for what is no signal */
export function signalNumber(text: string): number | undefined {
  const name = text.toUpperCase().replace(/^SIG/, "");
  const realTime = /^RT(?:MIN(?:\+(\d{1,2}))?|MAX(?:-(\d{1,2}))?)$/.exec(name);
  if (realTime !== null) {
    const number = name.startsWith("RTMIN") ? RTMIN + Number(realTime[1] ?? 0) : RTMAX - Number(realTime[2] ?? 0);
    return number >= RTMIN && number <= RTMAX ? number : undefined;
  }
  const known: Partial<Record<string, number>> = constants.signals;
  const number = /^\d{1,2}$/.test(name) ? Number(name) : known[`SIG${name}`];
  return number !== undefined && number >= 1 && number <= RTMAX ? number : undefined;
}
