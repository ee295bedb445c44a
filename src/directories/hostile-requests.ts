/** Requests with anything in them, for tests of the helper: well-formed ones of every kind, and bytes of them turned. */
import { type FuseClient, message, Op, ROOT, text, u32, u64 } from "./fuse-client.ts";
import type { Helper } from "./helper.ts";

const NAMES = ["file", "sub", "relative", "absolute", "hard", "..", ".", "../secret", "a", "b/c", "", "new"];
/** What the tests have no name for: MKNOD's kin, FSYNC, REMOVEXATTR, RELEASEDIR, FSYNCDIR, FORGET's list, FALLOCATE, LSEEK. */
const OPCODES = [...Object.values(Op), 19, 20, 23, 24, 29, 30, 42, 43, 46];

export interface Asked {
  current: () => { helper: Helper; fuse: FuseClient };
  /** Another one in the place of one that has ended. */
  restart: () => Promise<void>;
}

/** @returns whether an answer had the canary in it, and how often the helper was started anew */
export async function askAnything(
  requests: number,
  canary: string,
  { current, restart }: Asked,
): Promise<{ leaked: boolean; starts: number }> {
  const random = xorshift(0x5eed);
  const pick = <T>(list: readonly T[]): T => list[random() % list.length] as T;
  let starts = 0;
  let leaked = false;
  const watch = (): void => {
    let tail = "";
    current().helper.answers.on("data", (bytes: Buffer) => {
      const all = tail + bytes.toString("latin1");
      leaked ||= all.includes(canary);
      tail = all.slice(-64);
    });
  };
  watch();
  for (let asked = 0; asked < requests; ) {
    const batch: Buffer[] = [];
    for (let each = 0; each < 200; each++, asked++) {
      const node = BigInt(random() % 12);
      const parts = Array.from({ length: random() % 6 }, () =>
        pick([
          () => text(pick(NAMES)),
          () => u64(random() % 12),
          () => u32(random()),
          () => u32(random() % 4),
          () => u64(BigInt(random()) << 32n),
        ])(),
      );
      const whole = message(pick(OPCODES), node, Buffer.concat(parts), BigInt(asked));
      // Most keep the length that they have: another one is the end of the conversation.
      for (let flips = random() % 3; flips > 0; flips--) {
        const at = (random() % 2_000 === 0 ? 0 : 4) + (random() % (whole.length - 4));
        whole[at] = random() & 255;
      }
      batch.push(whole);
    }
    const { helper, fuse } = current();
    helper.requests.write(Buffer.concat(batch));
    // Its answer says that all before it were worked on; where the helper has ended, the next one goes on.
    // A request that says that it is longer than it is has swallowed ours: it gets what it lacks, and nonsense behind that.
    const waking = setTimeout(() => helper.requests.write(Buffer.alloc(600_000)), 500);
    const { errno: last } = await fuse.call(Op.STATFS, ROOT);
    clearTimeout(waking);
    if (last === -1) {
      await restart();
      watch();
      starts += 1;
    }
  }
  return { leaked, starts };
}

function xorshift(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
