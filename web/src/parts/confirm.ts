/** Before something is gone for good: its name is typed once more. */
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "../core/html.ts";
import { Store } from "../core/store.ts";
import { useStore } from "../core/use-store.ts";

export interface Question {
  /** "Remove sb-1234?" */
  title: string;
  /** What will be gone with it. */
  text: string;
  /** What must be typed. */
  word: string;
  /** What the button says. */
  verb: string;
}

class Questions extends Store {
  open: (Question & { answer: (yes: boolean) => void }) | undefined;

  /** Resolves when it was answered. */
  ask(question: Question): Promise<boolean> {
    const focused = document.activeElement;
    return new Promise((resolve) => {
      this.open = {
        ...question,
        answer: (yes) => {
          this.open = undefined;
          this.changed();
          // Where it was, if that is still there.
          setTimeout(() => (focused as HTMLElement | null)?.focus());
          resolve(yes);
        },
      };
      this.changed();
    });
  }
}

const questions = new Questions();

/** @param word what is typed, as a name or a number */
export function confirmed(question: Question): Promise<boolean> {
  return questions.ask(question);
}

export function Confirm() {
  const { open } = useStore(questions);
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState("");
  useEffect(() => {
    setTyped("");
    if (open === undefined) return;
    // It takes the focus, and keeps the rest of the page away.
    dialog.current?.showModal();
    return () => dialog.current?.close();
  }, [open]);
  if (open === undefined) return null;
  const right = typed.trim() === open.word;
  const submit = (event: Event): void => {
    event.preventDefault();
    if (right) open.answer(true);
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="question" onCancel=${() => open.answer(false)}>
      <form onSubmit=${submit}>
        <h2 id="question">${open.title}</h2>
        <p>${open.text}</p>
        <div class="field">
          <label for="question-word">Type <strong class="mono">${open.word}</strong> to confirm</label>
          <input id="question-word" autocomplete="off" spellcheck=${false} value=${typed} onInput=${(event: { currentTarget: HTMLInputElement }) => setTyped(event.currentTarget.value)} autofocus />
        </div>
        <div class="bar end">
          <button type="button" onClick=${() => open.answer(false)}>Cancel</button>
          <button class="danger" disabled=${!right}>${open.verb}</button>
        </div>
      </form>
    </dialog>
  `;
}
