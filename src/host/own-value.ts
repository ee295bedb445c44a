/** What the record itself has under a name that comes from outside: `constructor` and `__proto__` are names like any other. */
export function ownValue<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}
