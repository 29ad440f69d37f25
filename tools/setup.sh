#!/bin/sh
# Installs what `make iso` or `make test` needs and nothing that is already there.
# usage: tools/setup.sh iso|test
set -eu
what=${1:?usage: tools/setup.sh iso|test}
cd "$(dirname "$0")/.."

iso="python3 python3-venv debian-archive-keyring"
# python3-hivex is tied to the system's Python, which is why the environment below is made from it.
# gcc (binutils come with it) compiles the loaders that stand in for Microsoft's, and checks iso/boot.
test="python3-hivex libhivex-bin qemu-system-x86 qemu-utils ovmf gdisk ntfs-3g libntfs-3g89 osslsigncode wimtools p7zip-full make
      dosfstools mtools exfatprogs e2fsprogs xorriso cpio openssl 7zip cabextract msitools wine64 gcc grub-common"
need=$iso
[ "$what" = test ] && need="$iso $test"

missing=""
for p in $need; do
    # libntfs-3g carries its ABI number in its name: any of them will do
    case $p in libntfs-3g*) ls /usr/lib/*/libntfs-3g.so.* /lib/*/libntfs-3g.so.* >/dev/null 2>&1 && continue; p=ntfs-3g;; esac
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "rehost: installing$missing"
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "rehost: needs Python 3.11 or newer (Debian 12, Ubuntu 24.04 or later); /usr/bin/python3 is $(/usr/bin/python3 -V)" >&2
    exit 1
}
stamp=.venv/.ready-$what
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
    extra=""
    [ "$what" = test ] && extra="[dev]"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".$extra"
    touch "$stamp"
fi
