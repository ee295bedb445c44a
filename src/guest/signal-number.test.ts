import assert from "node:assert/strict";
import { test } from "node:test";
import { signalNumber } from "./signal-number.ts";

test("signals by name, number and place among the real-time ones", () => {
  const known = {
    TERM: 15,
    SIGQUIT: 3,
    sigwinch: 28,
    "9": 9,
    "SIGRTMIN+3": 37,
    RTMIN: 34,
    "SIGRTMAX-1": 63,
    RTMAX: 64,
  };
  for (const [text, number] of Object.entries(known)) assert.equal(signalNumber(text), number, text);
  const unknown = ["", "0", "65", "-1", "1.5", "SIG", "NONE", "RTMIN+31", "RTMAX-31", "RTMIN-1", "constructor"];
  for (const text of unknown) assert.equal(signalNumber(text), undefined, text);
});
