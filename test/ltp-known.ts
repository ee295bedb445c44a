/** What of LTP's tests of system calls does not pass in a sandbox, and why: a pattern of names, or of what the test said, and the reason. */
const NAMES: [RegExp, string][] = [
  [/^bind02$/, "everybody may use the ports below 1024, as under container engines: meant"],
  [/^(name_to|open_by)_handle_at\d+$/, "an overlay gives no handles of files, as under container engines"],
  [/^(ioprio_set03|keyctl09|mount08)$/, "asks for what newer kernels do otherwise"],
  [/^accept02$/, "joins a multicast group of a network card: there is none"],
  [/^sendmsg01$/, "brings a network interface up by programs that the image does not have"],
  [/^keyctl05$/, "loads a module of the kernel"],
  [/^madvise11$/, "takes pages of memory out of use, which an emulated machine's kernel does not offer"],
  [
    /^(bind06|fcntl14(_64)?|fork09|fork13|inotify09|setsockopt06|timerfd_settime02)$/,
    "takes more than its time on an emulated processor",
  ],
  [
    /^(pipeio_\d|msgstress01|prot_hsymlinks|ioctl02|dirtyc0w(_shmem)?|dirtypipe)$/,
    "other parts of LTP than its tests of system calls build it",
  ],
];
const SAID: [RegExp, string][] = [
  [
    /Failed to acquire device|free loop device|blk,0,0000\) failed: ENXIO/,
    "asks for a block device: there are no loop devices",
  ],
  [/Cannot parse kernel \.config/, "asks for settings of the kernel that it cannot find out"],
];

export function knownReason({ name, said }: { name: string; said: string }): string | undefined {
  return [
    ...NAMES.filter(([pattern]) => pattern.test(name)),
    ...SAID.filter(([pattern]) => pattern.test(said)),
  ][0]?.[1];
}
