/** Whether this process may do what only root may: own files of others, start programs as them. */
export function isRoot(): boolean {
  return process.getuid?.() === 0;
}
