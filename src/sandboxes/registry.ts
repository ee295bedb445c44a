/** What a server of several says of its sandboxes to the others. On one box there is none, and nothing of it is done. */
import type { SandboxRecord } from "./record.ts";

export interface Registry {
  /** Before one is made. @throws StacyError `unavailable` while this server takes no new sandboxes */
  assertOpen(): void;
  /**
   * That this server has it. Begun beside its making and awaited before anybody hears of it; whatever comes of it, `release` follows at the
   * sandbox's end.
   * @throws StacyError `unavailable`, `conflict` for a name that another one of its owner has elsewhere
   */
  claim(record: SandboxRecord): Promise<void>;
  /** Its row was written. What others see of it follows, whatever that takes. */
  publish(record: SandboxRecord): void;
  /** Nothing of it is left. */
  release(id: string): void;
}
