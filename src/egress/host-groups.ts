/** Names for what belongs together, so that nobody has to find out which hosts a package index needs. */

/** Rules by the name of their group, which has no `@` here. */
export type HostGroups = Readonly<Record<string, readonly string[]>>;

/** What each means is in docs/network.md; the configuration may set others in their place. */
export const BUILT_IN_GROUPS: HostGroups = {
  pypi: ["pypi.org", "files.pythonhosted.org"],
  npm: ["registry.npmjs.org", "registry.yarnpkg.com"],
  debian: ["deb.debian.org", "security.debian.org"],
  github: ["github.com", "github.com:22", "*.github.com", "*.githubusercontent.com"],
};

export const GROUP_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
