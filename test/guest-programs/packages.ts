/** What the image of the real programs' tests holds: packages of the host's distribution, with what each is for. */
export const PROGRAMS = [
  // A compiler, and what is built with it.
  ...["git", "gcc", "make", "libc6-dev", "golang-go", "rustc", "openjdk-17-jdk-headless"],
  ...["nodejs", "npm", "python3", "python3-ipykernel", "python3-jupyter-client"],
  ...["postgresql", "sqlite3", "rsync"],
  ...["chromium-headless-shell"],
  // Sandboxes inside the sandbox.
  ...["bubblewrap", "uidmap", "podman", "buildah", "crun", "fuse-overlayfs", "fuse3", "slirp4netns"],
  // Services.
  ...[
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "openssh-client",
    "sudo",
    "procps",
    "iproute2",
    "util-linux",
  ],
] as const;
