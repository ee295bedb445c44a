import assert from "node:assert/strict";
import { test } from "node:test";
import { place, SecretHosts } from "./secret.ts";

test("an echo is masked however much of it is percent-encoded, and in either case of digits", () => {
  const value = "with space/+=%!~*'()._-and z";
  const secret = { name: "KEY", placeholder: "placeholder", hosts: new SecretHosts(["api.example"]), value };
  const { mask } = place("/", {}, [{ ...secret, placement: { kind: "bearer" } }]);
  const hex = (character: string): string => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  const forms = {
    letter: value,
    component: encodeURIComponent(value),
    lower: encodeURIComponent(value).replace(/%../g, (hexed) => hexed.toLowerCase()),
    form: new URLSearchParams({ k: value }).toString().slice(2),
    everything: [...value].map(hex).join(""),
    "everything, upper": [...value].map((each) => hex(each).toUpperCase()).join(""),
    "the least": value.replace("%", "%25").replaceAll(" ", "+"),
  };
  for (const [what, form] of Object.entries(forms)) {
    assert.equal(mask(`/z?key=${form}&more=%2Fa+b`), "/z?key=placeholder&more=%2Fa+b", what);
  }
});

test("an echo in base64 is masked, of either alphabet, with or without padding, and as a part of what was encoded", () => {
  for (const value of ['SuperSecretValue1+/?&"x', "12345678", "123456789", "1234567890", "\x7e\x7f~~~???>>>"]) {
    const secret = { name: "KEY", placeholder: "placeholder", hosts: new SecretHosts(["api.example"]), value };
    const { mask } = place("/", {}, [{ ...secret, placement: { kind: "bearer" } }]);
    for (const text of [value, `user:${value}`, `us:${value}:more`, `${value}:`, `a${value}b`]) {
      const whole = Buffer.from(text, "latin1").toString("base64");
      const url = Buffer.from(text, "latin1").toString("base64url");
      for (const form of [whole, url, whole.replace(/=+$/, ""), encodeURIComponent(whole)]) {
        const masked = mask(`/z?key=${form}&more`);
        assert.match(masked, /^\/z\?key=.*placeholder.*&more$/, `${text} as ${form}: ${masked}`);
        const left = Buffer.from(masked.replace("placeholder", "").slice(7, -5), "base64").toString("latin1");
        assert.ok(!left.includes(value.slice(0, 4)) && !left.includes(value.slice(-4)), `${masked}: ${left}`);
      }
    }
  }
});

test("masking takes as long as text and values are, whatever they are made of; values of any length that they may have", () => {
  const seconds = (length: number): number => {
    const value = `${"a".repeat(length)}b`;
    const secret = { name: "KEY", placeholder: "placeholder", hosts: new SecretHosts(["api.example"]), value };
    const { mask } = place("/", {}, [{ ...secret, placement: { kind: "bearer" } }]);
    assert.equal(mask(`a%20${value}`), "a%20placeholder");
    const text = `${"a".repeat(60_000)}%`;
    const begun = process.cpuUsage();
    assert.equal(mask(text), text);
    return process.cpuUsage(begun).user / 1e6;
  };
  seconds(10);
  const [short, long] = [seconds(20), seconds(8_190)];
  assert.ok(long < 10 * short + 0.05, `a long value took ${long} s, a short one ${short} s`);
});
