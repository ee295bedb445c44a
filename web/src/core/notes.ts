/** Short messages: they go by themselves, later while somebody reads them, and can be closed by keyboard. */
import { Store } from "./store.ts";

export interface Note {
  id: number;
  kind: "done" | "failed";
  text: string;
}

const SHOWN_MS = { done: 6_000, failed: 15_000 };
const KEPT = 5;

class Notes extends Store {
  list: Note[] = [];
  #next = 0;
  readonly #timers = new Map<number, ReturnType<typeof setTimeout>>();

  say(text: string): void {
    this.#add("done", text);
  }

  fail(error: unknown): void {
    this.#add("failed", textOf(error));
  }

  close(id: number): void {
    this.hold(id);
    this.list = this.list.filter((note) => note.id !== id);
    this.changed();
  }

  /** Somebody reads it. */
  hold(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  /** Nobody does any more. */
  release({ id, kind }: Note): void {
    this.hold(id);
    this.#timers.set(
      id,
      setTimeout(() => this.close(id), SHOWN_MS[kind]),
    );
  }

  #add(kind: Note["kind"], text: string): void {
    // The same once more is no news.
    const same = this.list.find((note) => note.text === text);
    const note = same ?? { id: this.#next++, kind, text };
    if (same === undefined) this.list = [...this.list, note].slice(-KEPT);
    this.release(note);
    this.changed();
  }
}

export const notes = new Notes();

/** What failed, with what can be done about it. */
export function textOf(error: unknown): string {
  const { message = String(error), hint } = error as { message?: string; hint?: string };
  return hint === undefined ? message : `${message} (${hint})`;
}
