#!/bin/bash
# A script that enters the user namespace by itself if it is not root.
set -e
if [ "$(id -u)" -ne 0 ]; then
    exec buildah unshare "$0" "$@"
fi
c=$(buildah from localhost/busybox)
m=$(buildah mount $c)
mkdir -p $m/opt/app $m/var/lib/app
cp message.txt $m/opt/app/
tar -C $m/opt/app -xf site.tar
chown -R 8:8 $m/var/lib/app
chmod 2750 $m/var/lib/app
rm -r $m/etc/group
buildah umount $c > /dev/null
buildah config --user 8 --workingdir /var/lib/app $c
buildah run $c -- sh -c 'id -u > own; ls -ln /opt/app | wc -l >> own'
buildah commit -q $c result > /dev/null
buildah rm $c > /dev/null
