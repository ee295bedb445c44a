/**
 * Changes that a watcher keeps for a client that comes for them. How long their names are says the guest, and how many watchers there
 * are its clients: all of one sandbox have the same room.
 */
import { setTimeout } from "node:timers/promises";
import type { FilesystemEvent } from "./gen/filesystem/filesystem_pb.ts";

/** Bytes that are left for all watchers of one sandbox. */
export interface Room {
  left: number;
}

/** What an event costs beside its name. */
const OVERHEAD = 256;

/** What the guest's kernel has told is here after that time; one change follows another, as those of a rename do. */
const QUIET_MS = 100;
/** For a directory that is never quiet. */
const MOST_QUIETS = 10;

export class KeptChanges {
  readonly room: Room;
  #pushed = 0;
  #events: FilesystemEvent[] = [];
  /** Those before it were dropped. */
  #first = 0;

  constructor(room: Room) {
    this.room = room;
  }

  /** Where there is no room the oldest ones go; with none of its own, this one. */
  push(event: FilesystemEvent): void {
    this.#pushed += 1;
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

  /** When nothing more comes: a client that has changed a file and asks has what it changed, which takes its way through the guest. */
  async settled(signal: AbortSignal): Promise<void> {
    let before = -1;
    for (let i = 0; i < MOST_QUIETS && before !== this.#pushed; i++) {
      before = this.#pushed;
      await setTimeout(QUIET_MS, undefined, { signal, ref: false });
    }
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
