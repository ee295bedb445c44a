/** A disk of the host that fails when it is told to: an ext4 of its own, on a loop device, that is made to shut down. It needs root. */
import { mkdir, open, rm } from "node:fs/promises";
import { runTool } from "../src/host/run.ts";

const TOOLS = { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } };
/** EXT4_IOC_SHUTDOWN, without a word to the journal. */
const SHUT_DOWN = `import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))`;

export interface FailingDisk extends AsyncDisposable {
  /** Whatever is read or written from now on is an error (EIO). */
  fail(): Promise<void>;
}

/** Puts a directory onto such a disk, with what is in it. */
export async function failingDisk(dir: string, mebibytes: number): Promise<FailingDisk> {
  const run = async (tool: string, ...argv: string[]): Promise<string> =>
    (await runTool(tool, argv, TOOLS)).toString().trim();
  const [image, place] = [`${dir}.disk`, `${dir}.place`];
  const file = await open(image, "wx");
  await file.truncate(mebibytes * 2 ** 20);
  await file.close();
  await run("mke2fs", "-q", "-t", "ext4", image);
  await mkdir(place);
  await run("mount", "-o", "loop", image, place);
  try {
    await run("cp", "-a", "--sparse=always", `${dir}/.`, place);
    await run("mount", "--bind", place, dir);
  } finally {
    await run("umount", place);
  }
  let there = true;
  return {
    fail: async () => void (await run("python3", "-c", SHUT_DOWN, dir)),
    async [Symbol.asyncDispose]() {
      if (!there) return;
      there = false;
      await run("umount", "--lazy", dir);
      await rm(place, { recursive: true });
      await rm(image);
    },
  };
}
