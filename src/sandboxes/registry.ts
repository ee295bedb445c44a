/** What a server of several says of its sandboxes to the others. On one box there is none, and nothing of it is done. */
import { StacyError } from "../host/error.ts";
import type { SandboxRecord } from "./record.ts";

/** What sandboxes take together. */
export interface Taken {
  sandboxes: number;
  memoryMiB: number;
  vcpus: number;
  diskMiB: number;
}

/** What they may take at most; what is absent has no limit. */
export interface MostTaken {
  /** Those of the user that the client has named. */
  user?: Partial<Taken>;
  /** All of the owner. */
  all?: Partial<Taken>;
}

export interface Registry {
  /** Before one is made. @throws StacyError `unavailable` while this server takes no new sandboxes */
  assertOpen(): void;
  /**
   * That this server has it. Begun beside its making and awaited before anybody hears of it; whatever comes of it, `release` follows at the
   * sandbox's end.
   * @param most what all servers together may have
   * @throws StacyError `unavailable`, `conflict` for a name that another one of its owner has elsewhere, `limit`; an id that another one
   *   has is `isTaken`
   */
  claim(record: SandboxRecord, most?: MostTaken): Promise<void>;
  /** A claim of this owner is likely to be refused: nothing is begun beside it. */
  doubts(owner: string): boolean;
  /** What all servers have. @throws StacyError `unavailable` */
  taken(owner: string, user: string | undefined): Promise<{ user?: Taken; all: Taken }>;
  /** On the other servers that make some: sandboxes that are there, and how many there may be (absent: any number). */
  elsewhere(): { sandboxes: number; maxSandboxes: number | undefined };
  /** Its row was written. What others see of it follows, whatever that takes. */
  publish(record: SandboxRecord): void;
  /** Nothing of it is left here: where this server has it, nobody has it any more. */
  release(id: string): void;
}

/** Another server has a sandbox of that id: ids have 32 bits. */
export function idTaken(id: string): StacyError {
  return new StacyError("unavailable", `another server of the fleet has the sandbox ${id}`, {
    phase: "claim",
    remedy: "try again: the next one has another id",
    data: { idTaken: true },
  });
}

export function isTaken(error: unknown): boolean {
  return error instanceof StacyError && error.data?.idTaken === true;
}
