/** A model pays for each character that it reads: of a longer text it gets the beginning and the end. */
const SHOWN_CHARACTERS = 20_000;

/** The beginning and the end of a text that comes in pieces, in constant memory. */
export class Shortened {
  #head = "";
  #tail = "";
  #left = 0;

  get empty(): boolean {
    return this.#head === "";
  }

  /** Of what is shown, the last line that is not empty. */
  get lastLine(): string {
    return `${this.#head}${this.#tail}`.trimEnd().split("\n").at(-1) ?? "";
  }

  add(text: string): void {
    const half = SHOWN_CHARACTERS / 2;
    const room = half - this.#head.length;
    this.#head += text.slice(0, room);
    const rest = this.#tail + text.slice(room);
    this.#left += Math.max(0, rest.length - half);
    this.#tail = rest.slice(-half);
  }

  toString(): string {
    const gap = this.#left === 0 ? "" : `\n[... ${this.#left} characters left out ...]\n`;
    return `${this.#head}${gap}${this.#tail}`;
  }
}

export function shortened(text: string): string {
  const short = new Shortened();
  short.add(text);
  return short.toString();
}

/** Under a heading each, what there is of them. */
export function sections(first: string, parts: Record<string, Shortened | string | undefined>): string {
  const shown = Object.entries(parts).flatMap(([name, text]) => {
    const words = text?.toString() ?? "";
    return words === "" ? [] : [`${name}:\n${words}`];
  });
  return [first, ...shown].join("\n\n");
}
