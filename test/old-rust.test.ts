/** The set-up takes the distribution's own Rust where there is no other, and Debian 12's is of 2022: what we compile in Rust compiles with that. */
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

const PACKAGES = ["rustc", "cargo", "librust-libc-dev", "libstd-rust-dev", "libstd-rust-1.63", "libllvm14"];
const LIBRARIES = ["libgit2-1.5", "libhttp-parser2.9", "libmbedcrypto7", "libmbedtls14", "libmbedx509-1", "libssh2-1"];

async function whyNot(): Promise<string | undefined> {
  if (process.env.STACYVM_LONG !== "1") return "STACYVM_LONG=1 runs it";
  const version = await readFile("/etc/debian_version", "utf8").catch(() => "");
  return version.startsWith("12.") ? undefined : "needs Debian 12, whose packages it takes";
}

describe("Debian 12's own Rust", { skip: (await whyNot()) ?? false }, () => {
  let dir: string;
  let root: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "stacyvm-rust-"));
    root = join(dir, "root");
    await runTool("apt-get", ["download", "-qq", ...PACKAGES, ...LIBRARIES], { cwd: dir });
    for (const name of await readdir(dir))
      if (name.endsWith(".deb")) await runTool("dpkg", ["-x", join(dir, name), root]);
  });
  after(() => rm(dir, { recursive: true, force: true }));

  for (const crate of ["agent", "spawner", "directory"]) {
    test(crate, async () => {
      const source = join(dir, crate);
      await mkdir(source);
      for (const part of ["Cargo.toml", "Cargo.lock", "src"])
        await cp(join(packageRoot, crate, part), join(source, part), { recursive: true });
      const settings = [
        `source.crates-io.replace-with="packaged"`,
        `source.packaged.directory="${join(root, "usr/share/cargo/registry")}"`,
      ];
      await runTool(
        join(root, "usr/bin/cargo"),
        ["check", "--offline", "--locked", ...settings.flatMap((setting) => ["--config", setting])],
        {
          cwd: source,
          env: {
            ...process.env,
            RUSTC: join(root, "usr/bin/rustc"),
            CARGO_HOME: join(dir, "home"),
            LD_LIBRARY_PATH: join(root, "usr/lib/x86_64-linux-gnu"),
          },
        },
      );
    });
  }
});
