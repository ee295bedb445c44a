/** FUSE as a guest's kernel speaks it, for what is brought into a layer and for tests of the helper: requests by number, and what of the answers they look at. */
import type { Helper } from "./helper.ts";

export const Op = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  OPENDIR: 27,
  READDIR: 28,
  ACCESS: 34,
  CREATE: 35,
  READDIRPLUS: 44,
  RENAME2: 45,
  /** Not FUSE's: what an earlier helper has told. */
  RESTORE: 0x5354_4143,
} as const;

export const ROOT = 1n;

export interface Answer {
  /** 0, or a positive errno. */
  errno: number;
  body: Buffer;
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, 4 * at);
  return bytes;
}

export function u64(...values: (bigint | number)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [at, value] of values.entries()) bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * at);
  return bytes;
}

export function text(value: string | Buffer): Buffer {
  return Buffer.concat([Buffer.from(value), Buffer.from([0])]);
}

export function message(opcode: number, node: bigint, body: Buffer, unique = 0n): Buffer {
  const length = 40 + body.length;
  return Buffer.concat([u32(length, opcode), u64(unique, node), u32(0, 0, 0, 0), body]);
}

export class FuseClient {
  readonly #helper: Helper;
  readonly #waiting = new Map<bigint, (answer: Answer) => void>();
  /** Changes by the host that it was told of: kind, a space, the path. */
  readonly changes: string[] = [];
  #unique = 1n;
  #rest = Buffer.alloc(0);
  #over = false;

  constructor(helper: Helper) {
    this.#helper = helper;
    helper.answers.on("data", (bytes: Buffer) => this.#take(bytes));
    void helper.ended.then(() => {
      this.#over = true;
      for (const settle of this.#waiting.values()) settle({ errno: -1, body: Buffer.alloc(0) });
      this.#waiting.clear();
    });
  }

  /** Without an answer. */
  tell(opcode: number, node: bigint, body: Buffer): void {
    this.#helper.requests.write(message(opcode, node, body));
  }

  /** @returns errno -1 when the helper has ended instead */
  call(opcode: number, node: bigint, ...parts: Buffer[]): Promise<Answer> {
    if (this.#over) return Promise.resolve({ errno: -1, body: Buffer.alloc(0) });
    const unique = this.#unique++;
    this.#helper.requests.write(message(opcode, node, Buffer.concat(parts), unique));
    return new Promise((settle) => this.#waiting.set(unique, settle));
  }

  /** @returns the node @throws with the errno */
  async lookup(node: bigint, ...names: (string | Buffer)[]): Promise<bigint> {
    let at = node;
    for (const name of names) at = (await this.good(Op.LOOKUP, at, text(name))).readBigUInt64LE(0);
    return at;
  }

  /** @throws with the errno */
  async good(opcode: number, node: bigint, ...parts: Buffer[]): Promise<Buffer> {
    const { errno, body } = await this.call(opcode, node, ...parts);
    if (errno !== 0) throw new Error(`request ${opcode} of node ${node}: errno ${errno}`);
    return body;
  }

  async open(node: bigint, flags = 0): Promise<bigint> {
    return (await this.good(Op.OPEN, node, u32(flags, 0))).readBigUInt64LE(0);
  }

  read(handle: bigint, size = 4096, offset = 0): Promise<Answer> {
    return this.call(Op.READ, 0n, u64(handle, offset), u32(size, 0), u64(0), u32(0, 0));
  }

  /** @param flags as the file was opened */
  write(handle: bigint, data: string | Buffer, offset = 0, flags = 0): Promise<Answer> {
    const bytes = Buffer.from(data);
    return this.call(Op.WRITE, 0n, u64(handle, offset), u32(bytes.length, 0), u64(0), u32(flags, 0), bytes);
  }

  #take(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= 16) {
      const length = this.#rest.readUInt32LE(0);
      if (this.#rest.length < length) return;
      const unique = this.#rest.readBigUInt64LE(8);
      const answer = { errno: Math.abs(this.#rest.readInt32LE(4)), body: Buffer.from(this.#rest.subarray(16, length)) };
      this.#rest = this.#rest.subarray(length);
      if (unique === 0n && answer.body.length >= 8)
        this.changes.push(`${answer.body.readUInt32LE(0)} ${answer.body.toString("utf8", 8)}`);
      this.#waiting.get(unique)?.(answer);
      this.#waiting.delete(unique);
    }
  }
}
