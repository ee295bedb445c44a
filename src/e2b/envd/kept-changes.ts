/**
 * Changes that a watcher keeps for a client that comes for them. How long their names are says the guest, and how many watchers there
 * are its clients: all of one sandbox have the same room.
 */
import type { FilesystemEvent } from "./gen/filesystem/filesystem_pb.ts";

/** Bytes that are left for all watchers of one sandbox. */
export interface Room {
  left: number;
}

/** What an event costs beside its name. */
const OVERHEAD = 256;

export class KeptChanges {
  readonly room: Room;
  #events: FilesystemEvent[] = [];
  /** Those before it were dropped. */
  #first = 0;

  constructor(room: Room) {
    this.room = room;
  }

  /** Where there is no room the oldest ones go; with none of its own, this one. */
  push(event: FilesystemEvent): void {
    const bytes = costOf(event);
    while (this.room.left < bytes && this.#first < this.#events.length) {
      this.room.left += costOf(this.#events[this.#first++] as FilesystemEvent);
    }
    if (this.#first > 1_024 && this.#first * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#first);
      this.#first = 0;
    }
    if (this.room.left < bytes) return;
    this.room.left -= bytes;
    this.#events.push(event);
  }

  /** All of them, which are kept no longer. */
  take(): FilesystemEvent[] {
    const events = this.#events.slice(this.#first);
    for (const event of events) this.room.left += costOf(event);
    this.#events = [];
    this.#first = 0;
    return events;
  }
}

/** A character has two bytes at most. */
function costOf({ name }: FilesystemEvent): number {
  return OVERHEAD + 2 * name.length;
}
