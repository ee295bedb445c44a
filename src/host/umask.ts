/** Modes of what this process makes. */

/** As whoever started us has it: for files that are made for them, outside of the data directory. */
export const usersMask = process.umask();

/** From now on files and directories are for their owner alone, whatever they were asked to be; child processes inherit it. */
export function keepToOwner(): void {
  process.umask(0o077);
}
