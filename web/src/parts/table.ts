/** A table of things, sorted by its columns. On a narrow screen only what matters most of them is shown. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { html } from "../core/html.ts";
import { Empty } from "./controls.ts";

export interface Column<T> {
  name: string;
  /** What is in the cell. */
  cell: (row: T) => ComponentChildren;
  /** What it is sorted by; absent: it is not. */
  by?: (row: T) => string | number;
  number?: boolean;
  /** Not on a narrow screen: `phone` hides it below a tablet, `tablet` below a desktop. */
  from?: "tablet" | "desktop";
}

export interface Sorting {
  column: number;
  down: boolean;
}

export function sorted<T>(rows: readonly T[], columns: readonly Column<T>[], sorting: Sorting | undefined): T[] {
  const by = sorting === undefined ? undefined : columns[sorting.column]?.by;
  if (by === undefined) return [...rows];
  const sign = sorting?.down === true ? -1 : 1;
  return [...rows].sort((a, b) => {
    const left = by(a);
    const right = by(b);
    if (typeof left === "number" && typeof right === "number") return sign * (left - right);
    return sign * String(left).localeCompare(String(right), undefined, { numeric: true });
  });
}

export function Head<T>({
  columns,
  sorting,
  sort,
  before,
}: {
  columns: readonly Column<T>[];
  sorting: Sorting | undefined;
  sort: (sorting: Sorting) => void;
  /** A cell before the first. */
  before?: ComponentChildren;
}) {
  return html`
    <thead><tr>
      ${before}
      ${columns.map(({ name, by, number, from }, column) => {
        const here = sorting?.column === column;
        const order = here ? (sorting.down ? "descending" : "ascending") : undefined;
        return html`
          <th scope="col" class=${classes(number, from)} aria-sort=${order}>
            ${by === undefined ? name || html`<span class="visually-hidden">Actions</span>` : html`<button type="button" class="sort" onClick=${() => sort({ column, down: here && !sorting.down })}>${name}<span aria-hidden="true">${here ? (sorting.down ? " ↓" : " ↑") : ""}</span></button>`}
          </th>`;
      })}
    </tr></thead>
  `;
}

export function classes(number: boolean | undefined, from: string | undefined): string {
  return `${number === true ? "number " : ""}${from === undefined ? "" : `from-${from}`}`;
}

export function Table<T>({
  label,
  columns,
  rows,
  keyOf,
  empty,
}: {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  empty: string;
}) {
  const [sorting, sort] = useState<Sorting | undefined>();
  if (rows.length === 0) return html`<${Empty}>${empty}<//>`;
  return html`
    <div class="scroll" tabindex="0" role="group" aria-label=${label}>
      <table>
        <${Head} columns=${columns} sorting=${sorting} sort=${sort} />
        <tbody>
          ${sorted(rows, columns, sorting).map(
            (row) =>
              html`<tr key=${keyOf(row)}>${columns.map(({ cell, number, from }) => html`<td class=${classes(number, from)}>${cell(row)}</td>`)}</tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}
