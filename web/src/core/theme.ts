/** Light, dark, or as the system has it. */
import { Store } from "./store.ts";

const KEY = "stacyvm.theme";
const CHOICES = ["system", "light", "dark"] as const;
export type ThemeChoice = (typeof CHOICES)[number];

class Theme extends Store {
  choice: ThemeChoice = CHOICES.find((each) => each === localStorage.getItem(KEY)) ?? "system";

  constructor() {
    super();
    this.#apply();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.changed());
  }

  next(): void {
    this.choice = CHOICES[(CHOICES.indexOf(this.choice) + 1) % CHOICES.length] ?? "system";
    localStorage.setItem(KEY, this.choice);
    this.#apply();
    this.changed();
  }

  #apply(): void {
    document.documentElement.dataset.theme = this.choice;
  }
}

export const theme = new Theme();

/** A colour of the style sheet, as it is now: for what is drawn on a canvas. */
export function colour(name: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
