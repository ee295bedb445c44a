/** Preloaded into a daemon (`node --import`): its wall clock is `STACYVM_TEST_CLOCK_SHIFT` ms off, as after somebody set it. */
const shift = Number(process.env.STACYVM_TEST_CLOCK_SHIFT ?? 0);
if (shift !== 0) {
  const Real = Date;
  const now = (): number => Real.now() + shift;
  globalThis.Date = new Proxy(Real, {
    construct: (target, args, self) => Reflect.construct(target, args.length === 0 ? [now()] : args, self),
    apply: () => new Real(now()).toString(),
    get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
  });
}
