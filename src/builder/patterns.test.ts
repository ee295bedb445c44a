/** What .dockerignore and COPY's patterns mean: the cases of Docker's own tests, and those that have leaked secrets. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { StacyError } from "../host/error.ts";
import { ignoreRules } from "./ignore.ts";
import { namePattern } from "./match.ts";

const WHEEL = "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl";

describe(".dockerignore", () => {
  /** Rules, then paths that they hide, then paths that they leave. */
  const cases: [string[], string[], string[]][] = [
    [["*"], [".env", ".git", ".git/config", "a", "a/b/.env"], []],
    [["**"], [".env", "dir/file", "dir/.hidden/x"], []],
    [["**/"], ["file", "dir/file"], []],
    [["**/**"], ["dir/file"], []],
    [["dir/**"], ["dir/file", "dir/dir2/file"], ["dir", "other"]],
    [["**/dir"], ["dir", "dir/file", "a/dir", "a/b/dir/c"], ["dir2"]],
    [["**/dir2/*"], ["dir/dir2/file", "dir2/.x"], ["dir2"]],
    [["**/dir2/**"], ["dir/dir2/dir3/file"], ["dir/dir2"]],
    [["**file"], ["file", "dir/file", "dir/dir/file"], []],
    [["**/file*txt"], ["dir/dir/file.txt"], ["dir/file.md"]],
    [["**/**/*.txt"], ["dir/dir/file.txt", "file.txt"], ["dir/file.txt2"]],
    [["a**/*.txt"], ["a/file.txt", "a/dir/file.txt", "a/dir/dir/file.txt"], ["b/file.txt"]],
    [["a/*.txt"], ["a/file.txt"], ["a/dir/file.txt"]],
    [["a[b-d]e"], ["ace"], ["ae", "aae"]],
    [["a[^b-d]e"], ["aze"], ["ace"]],
    [[".*"], [".foo", ".env", ".git/config"], ["foo", "a/.env"]],
    [["**/.*"], [".foo", "a/b/.env"], ["foo.txt"]],
    [["abc.def"], ["abc.def"], ["abcdef", "abcZdef"]],
    [["abc?def"], ["abcZdef"], ["abcdef", "abc/def"]],
    [["**/foo/bar"], ["foo/bar", "dir/foo/bar", "dir/dir2/foo/bar"], ["foo"]],
    [["**/.foo"], [".foo", "a/.foo"], ["bar.foo"]],
    [
      ["a(b)c/def", "c++", "a.|)$(}+{bc", WHEEL],
      ["a(b)c/def", "c++/secret", "a.|)$(}+{bc", WHEEL],
      ["a(b)c/xyz", "cc"],
    ],
    [["a\\*b"], ["a*b"], ["ab", "axb"]],
    [["/rooted", "./dotted", "slash/", "a/../up"], ["rooted", "dotted", "slash/x", "up"], ["x/rooted"]],
    [["docs", "!docs/README.md"], ["docs/x", "docs"], ["docs/README.md"]],
    [["docs/*", "!docs/README.md"], ["docs/x"], ["docs/README.md"]],
    [["!fileutils.go", "*.go"], ["fileutils.go"], []],
    [["**", "!util/docker/web"], ["util", "util/docker"], ["util/docker/web/foo"]],
    [["**", "!util/docker/web", "util/docker/web/foo"], ["util/docker/web/foo"], ["util/docker/web/bar"]],
    [["*", "!src", "**/.env"], [".env", "src/.env", "src/a/.env", "Makefile"], ["src/a.js"]],
    [["*.md", "!README*.md", "README-secret.md"], ["a.md", "README-secret.md"], ["README.md"]],
    [["Upper"], ["Upper"], ["upper"]],
    [["  spaced  ", "# comment", ""], ["spaced"], ["# comment"]],
    // Names that every object of the language has.
    [["constructor", "toString", "__proto__"], ["constructor", "toString", "__proto__"], ["valueOf"]],
  ];
  for (const [rules, hidden, left] of cases) {
    test(rules.join(" ; "), () => {
      const ignores = ignoreRules(rules.join("\n"));
      for (const path of hidden) assert.ok(ignores(path), `${path} is to be hidden`);
      for (const path of left) assert.ok(!ignores(path), `${path} is to be left`);
    });
  }

  test("what is no pattern is named with its line", () => {
    for (const rule of ["!", "a[", "["]) {
      assert.throws(
        () => ignoreRules(`# first\n${rule}\n`),
        (error) => error instanceof StacyError && error.code === "invalid" && /line 2/.test(error.message),
        rule,
      );
    }
  });
});

test("a pattern of COPY is what Go's filepath.Match takes it for", () => {
  const cases: [string, string[], string[]][] = [
    ["abc", ["abc"], ["abcd"]],
    ["*", ["abc", ".env"], []],
    ["*c", ["abc", "c"], ["cb"]],
    ["a*b?c*x", ["abxbbxdbxebxczzx"], ["abxbbxdbxebxczzy"]],
    ["**x", ["x", "ax"], ["xa"]],
    ["ab[c]", ["abc"], ["abd"]],
    ["ab[e-g]", ["abf"], ["abc"]],
    ["ab[^b-d]", ["abe"], ["abc"]],
    ["[!a]b", ["!b", "ab"], ["cb"]],
    ["a\\*b", ["a*b"], ["ab"]],
    ["a?b", ["a☺b"], ["ab"]],
    ["a???b", [], ["a☺b"]],
    ["[a-ζ]*", ["α"], ["A"]],
    ["[\\]a]", ["]", "a"], ["b"]],
    ["[x\\-]", ["x", "-"], ["z"]],
    ["[[:alpha:]]", [], ["a"]],
    ["{a,b}", ["{a,b}"], ["a"]],
    ["*(a)", ["x(a)"], ["aa"]],
    ["#a", ["#a"], []],
    ["!a", ["!a"], ["b"]],
    [".*", [".git"], ["git"]],
  ];
  for (const [pattern, fits, others] of cases) {
    const match = namePattern(pattern);
    for (const name of fits) assert.ok(match(name), `${pattern} means ${name}`);
    for (const name of others) assert.ok(!match(name), `${pattern} does not mean ${name}`);
  }
  for (const bad of ["[", "a[", "[^", "[^bc", "[]a]", "a\\"]) {
    assert.throws(() => namePattern(bad), { code: "invalid" }, bad);
  }
});
