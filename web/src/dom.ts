/** Making elements. Text is always text: nothing that comes from a server or a guest is read as HTML. */

type Child = Node | string | undefined;
type Props = Record<string, string | number | boolean | undefined | ((event: never) => void)>;

/** @param props properties by name; `class`, `for`, `aria-...` and `data-...` as attributes; `onclick` and the like as listeners */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value as unknown as EventListener);
    else if (name === "class" || name === "for" || name.includes("-")) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

export function svg(tag: string, props: Record<string, string | number>, ...children: Child[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, String(value));
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

export function table(head: string[], rows: (HTMLTableRowElement | Child[])[]): HTMLElement {
  const body = rows.map((row) =>
    row instanceof HTMLTableRowElement ? row : el("tr", {}, ...row.map((cell) => el("td", {}, cell))),
  );
  const header = el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, header), el("tbody", {}, ...body)));
}

/** Says what failed, with the hint, until it is clicked away. */
export function note(error: unknown): void {
  const { message = String(error), hint } = error as { message?: string; hint?: string };
  const box = el(
    "div",
    { class: "note", title: "click to close" },
    hint === undefined ? message : `${message} (${hint})`,
  );
  box.addEventListener("click", () => box.remove());
  document.querySelector("#notes")?.append(box);
}

/** A button whose work may fail: disabled while it runs, and its failure is said. */
export function action(label: string, work: () => Promise<unknown>, kind = ""): HTMLButtonElement {
  const button = el("button", { class: kind, type: "button" }, label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      note(error);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

export function ms(value: number): string {
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

/** `12 s`, `5 min`, `3 h`: how far a moment is from now. */
export function distance(iso: string): string {
  const seconds = Math.abs(Date.parse(iso) - Date.now()) / 1000;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  let rest = value;
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${at === 0 ? rest : rest.toFixed(1)} ${units[at]}`;
}
