import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { makeAuthority } from "./authority.ts";
import { Certificates } from "./certificates.ts";

test("a guest that asks for one name after another has some certificates at once, then a few a second, and no more wait", async () => {
  let now = 0;
  const waits: { ms: number; wake: () => void }[] = [];
  const certificates = new Certificates(
    await makeAuthority(),
    () => now,
    (ms) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      waits.push({ ms, wake: resolve });
      return promise;
    },
  );
  const asked = Array.from({ length: 200 }, (_, i) => certificates.of(`n${i}.example.com`));
  const refused = asked.map((each) =>
    each.then(
      () => "made",
      ({ code }) => code as string,
    ),
  );
  const [first] = await Promise.all([asked[0], asked[31]]);
  assert.equal(waits.length, 32, "behind the first 32");
  const codes = await Promise.all(refused.slice(64));
  assert.deepEqual([...new Set(codes)], ["limit"]);
  const times = waits.map(({ ms }) => ms);
  assert.deepEqual([times[0], times[1], times.at(-1)], [250, 500, 32 * 250]);
  // A name that has one takes nothing, and one that was refused may be asked for again.
  assert.equal(await certificates.of("n0.example.com"), first);
  for (const { wake } of waits.splice(0)) wake();
  assert.deepEqual([...new Set(await Promise.all(refused.slice(0, 64)))], ["made"]);
  now += 3_600_000;
  const later = await certificates.of("n199.example.com");
  assert.equal(waits.length, 0);
  // Each for its own name, all with one key, which it is dear to make.
  const shown = [first, later].map((each) => new X509Certificate(each?.cert ?? ""));
  assert.deepEqual(
    shown.map((each) => each.subjectAltName),
    ["DNS:n0.example.com", "DNS:n199.example.com"],
  );
  assert.equal(first?.key, later.key);
  assert.ok(shown.every((each) => each.checkPrivateKey(createPrivateKey(first?.key ?? ""))));
});

test("few are kept: the one used longest ago is made anew", async () => {
  let made = 0;
  let now = 0;
  const certificates = new Certificates(await makeAuthority(), () => {
    made += 1;
    now += 1_000;
    return now;
  });
  const begin = made;
  for (let i = 0; i < 257; i++) await certificates.of(`n${i}.example.com`);
  assert.equal(made - begin, 257);
  await certificates.of("n256.example.com");
  assert.equal(made - begin, 257);
  await certificates.of("n0.example.com");
  assert.equal(made - begin, 258);
});
