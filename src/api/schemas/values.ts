/** Small forms that bodies share. */

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The same without the keys that are undefined. */
export function defined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as Defined<T>;
}

/** Without a fraction, where clients read Go's RFC 3339. */
export function isoSeconds(ms: number): string {
  return iso(ms).replace(/\.\d+/, "");
}

export function iso(ms: number): string {
  return new Date(ms).toISOString();
}
