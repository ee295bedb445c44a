/** What public suites ask and guests do not give, each with its reason. */

/** `FILE NUMBER` of pjdfstest. */
export const PJDFSTEST_FAILURES: Record<string, string> = {};

/** Names of `runtest/syscalls` that fail. */
export const LTP_FAILURES: Record<string, string> = {};

/** Names of `runtest/syscalls` that are not run. */
export const LTP_LEFT_OUT: readonly (readonly [RegExp, string])[] = [];
