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
