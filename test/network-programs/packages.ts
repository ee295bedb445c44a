/** What the guest of the network programs' test holds: packages of the host's distribution, with what each is for. */
export const NETWORK_PROGRAMS = [
  // Clients, each as its users run it.
  ...["openssh-client", "git", "postgresql-client", "redis-tools", "bind9-dnsutils", "curl", "ca-certificates"],
  ...["netcat-openbsd", "iputils-ping", "ntpsec-ntpdig"],
  // Languages, each with its own resolver or its own way to connect.
  ...["nodejs", "npm", "python3", "python3-pip", "python3-grpcio", "python3-websockets"],
  ...["golang-go", "openjdk-17-jdk-headless", "gcc", "libc6-dev", "musl-tools"],
] as const;
