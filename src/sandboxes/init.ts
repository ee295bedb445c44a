/**
 * An image's own init, for those who ask for it (`init: true`): `/sbin/init` as a container engine runs it, process 1 of namespaces of its
 * own, while the agent stays process 1 of the guest. As the first of the set-up commands it is part of the golden snapshot, so a
 * restored sandbox has its services running.
 *
 * Files, network and host name are shared with the sandbox's commands, so `systemctl` and what services serve are there for them. Its own
 * are processes (what ends it ends what it has started), /proc and the control group, with the guest's controllers.
 */
export const START_INIT = `[ -x /sbin/init ] || { echo "the image has no /sbin/init"; exit 1; }
command -v unshare >/dev/null || { echo "the image has no unshare (util-linux), which starts its init"; exit 1; }
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p $group/waiting $group/init
for pid in $(cat $group/cgroup.procs); do echo $pid > $group/waiting/cgroup.procs || :; done 2>/dev/null
for controller in cpu memory pids; do echo +$controller > $group/cgroup.subtree_control || :; done
export group
unshare --pid --mount --propagation slave --fork sh -c '
echo 0 > $group/init/cgroup.procs
id=/proc/sys/kernel/random/boot_id kept=/run/init-boot-id
touch $kept; mount --bind $id $kept; mount -t proc proc /proc; mount --bind $kept $id; umount $kept; rm $kept
mount --make-rshared /
exec unshare --cgroup sh -c "
umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH=$PATH container=stacyvm /sbin/init"' > /run/init.log 2>&1 < /dev/null &
init=$!
command -v systemctl >/dev/null || exit 0
until [ -S /run/systemd/private ]; do
  kill -0 $init || break
  sleep .1
done
read -r pid rest < /proc/$init/task/$init/children || :
case $(nsenter -t $pid -m -p systemctl is-system-running --wait) in
running|degraded)
  # It takes nobody of another process namespace there; without that socket, systemctl asks by D-Bus.
  [ ! -S /run/dbus/system_bus_socket ] || rm /run/systemd/private
  exit 0;;
esac
echo "the image's init has ended"; cat /run/init.log; exit 1
`;
