# Functions of the first process (/init), apart so that they can be read and tried one by one: on another
# folder than the kernel's, too (SYS, PROC).
SYS=${SYS:-/sys}
PROC=${PROC:-/proc}
modaliases=

# option NAME: prints the value of NAME=value (or nothing for a bare NAME) of the kernel command line;
# fails where it is not there.
option() {
    local word
    for word in $(cat "$PROC/cmdline"); do
        case $word in
        "$1") return 0 ;;
        "$1="*) echo "${word#*=}"; return 0 ;;
        esac
    done
    return 1
}

# Loads the drivers for the devices there are, as a device manager would at start. Returns at once when no
# device is new. Reads the buses' own lists: a walk through all of /sys/devices takes ten times as long.
load_drivers() {
    local found
    found=$(cat "$SYS"/bus/*/devices/*/modalias 2>/dev/null)
    [ "$found" = "$modaliases" ] && return
    modaliases=$found
    echo "$found" | sort -u | xargs /usr/sbin/modprobe -abq
}

# What is there, in one line: compared to see whether devices still appear.
devices() {
    echo "$SYS"/bus/scsi/devices/* "$SYS"/class/block/* "$SYS"/bus/usb/devices/* "$SYS"/bus/pci/devices/*
}

# True while a controller says that it is not finished: an NVMe controller that starts, or a USB disk whose
# driver has made a host but not yet looked what is behind it (it waits a second, so that the disk can settle).
devices_busy() {
    local file host state
    for file in "$SYS"/class/nvme/*/state; do
        [ -e "$file" ] || continue
        read -r state <"$file"
        case $state in new | resetting | connecting) return 0 ;; esac
    done
    for host in "$SYS"/bus/usb/devices/*/host*; do
        [ -e "$host" ] || continue
        set -- "$host"/target*
        [ -e "$1" ] || return 0
    done
    return 1
}

# Hundredths of a second since the kernel started.
uptime_centiseconds() {
    local seconds rest
    read -r seconds rest <"$PROC/uptime"
    echo $((${seconds%.*} * 100 + 1${seconds#*.} - 100))
}

# Waits until no device has appeared for 0.3 s (1 s where there is something on USB besides the hubs), at most
# 15 s. SAS and RAID controllers are searched while their driver loads (scan=sync in modprobe.d), so not here.
wait_for_disks() {
    local start now last before="" seen enough
    start=$(uptime_centiseconds)
    last=$start
    while :; do
        load_drivers
        seen=$(devices)
        now=$(uptime_centiseconds)
        if [ "$seen" != "$before" ] || devices_busy; then
            before=$seen
            last=$now
        fi
        enough=30
        set -- "$SYS"/bus/usb/devices/*-[1-9]* # 1-1 is a device, usb1 and 1-0:1.0 are the controller's own hub
        [ -e "$1" ] && enough=100
        [ $((now - last)) -ge $enough ] && return 0
        [ $((now - start)) -ge 1500 ] && return 1
        usleep 100000
    done
}

# The consoles of the kernel command line that exist, the main one (/dev/console) last. tty0 stands for the
# screen's current console, which is tty1.
consoles() {
    sed 's/\btty0\b/tty1/' "$SYS/class/tty/console/active"
}

# One line per console for busybox init. The main one starts by itself; the others wait for Enter, so that two
# people do not work on the same disks without knowing it, and no time is spent on what nobody looks at.
write_inittab() {
    local all main tty
    all=$(consoles)
    main=${all##* }
    for tty in $all; do
        if [ "$tty" = "$main" ]; then
            echo "$tty::respawn:-/usr/lib/rehost/console main"
        else
            echo "$tty::askfirst:-/usr/lib/rehost/console other"
        fi
    done
    echo "tty2::askfirst:-/usr/bin/sh"
    echo "::respawn:/busybox uevent /usr/lib/rehost/hotplug"
    echo "::ctrlaltdel:/usr/sbin/reboot"
    echo "::shutdown:/busybox umount -a -r 2>/dev/null"
}

# The line that tests and measurements wait for, on the serial console if there is one.
announce() {
    case " $(consoles) " in
    *" ttyS0 "*) echo "REHOST-BOOT $(cut -d' ' -f1 "$PROC/uptime")" >/dev/ttyS0 ;;
    esac
}
