/**
 * Work that is done once for all who ask, its result kept as long as this process lives. Who asks meanwhile waits for the same. What fails is
 * not kept: a host that had no descriptor left at that moment may have one for the next who asks.
 */
export function once<T>(work: () => Promise<T>): () => Promise<T> {
  let kept: Promise<T> | undefined;
  return () => {
    if (kept !== undefined) return kept;
    const begun = work();
    kept = begun;
    begun.catch(() => {
      kept = undefined; // told to whoever asked
    });
    return begun;
  };
}
