/** Counts how often others have their turn of the event loop. @returns ends it, and says how many there were */
export function countTurns(): () => number {
  let turns = 0;
  let ended = false;
  const count = (): void => {
    turns += 1;
    if (!ended) setImmediate(count);
  };
  setImmediate(count);
  return () => {
    ended = true;
    return turns;
  };
}
