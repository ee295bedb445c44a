/** Permissions as `chmod` takes them (POSIX, "chmod"): an octal number, or symbols that change those that a file has. */

const OCTAL = /^0*[0-7]{1,4}$/;
const CLAUSE = /^([ugoa]*)((?:[-+=](?:[rwxXst]+|[ugo])?)+)$/;
/** Bits that each class may have. */
const CLASSES: Record<string, number> = { u: 0o4700, g: 0o2070, o: 0o1007, a: 0o7777 };
const SHIFTS: Record<string, number> = { u: 6, g: 3, o: 0 };
const PERMISSIONS: Record<string, number> = { r: 0o444, w: 0o222, x: 0o111, s: 0o6000, t: 0o1000 };

export function isFileMode(text: string): boolean {
  return OCTAL.test(text) || text.split(",").every((clause) => CLAUSE.test(clause));
}

/** @param text for which `isFileMode` holds @param mode that the file has @returns what it gets, 0 to 0o7777 */
export function fileMode(text: string, mode: number, isDirectory: boolean): number {
  if (OCTAL.test(text)) return Number.parseInt(text, 8);
  let now = mode;
  for (const clause of text.split(",")) {
    const [, who = "", actions = ""] = CLAUSE.exec(clause) ?? [];
    // Without a class all are meant: a build has no mask.
    const among = [...(who || "a")].reduce((bits, one) => bits | (CLASSES[one] ?? 0), 0);
    for (const [, operator, permissions = ""] of actions.matchAll(/([-+=])([^-+=]*)/g)) {
      const bits = bitsOf(permissions, now, isDirectory) & among;
      if (operator === "+") now |= bits;
      else if (operator === "-") now &= ~bits;
      else now = (now & ~among) | bits;
    }
  }
  return now;
}

/** Of all classes. */
function bitsOf(permissions: string, mode: number, isDirectory: boolean): number {
  const shift = SHIFTS[permissions];
  if (shift !== undefined) return ((mode >> shift) & 7) * 0o111;
  const executes = isDirectory || (mode & 0o111) !== 0;
  return [...permissions].reduce(
    (bits, one) => bits | (one === "X" ? (executes ? 0o111 : 0) : (PERMISSIONS[one] ?? 0)),
    0,
  );
}
