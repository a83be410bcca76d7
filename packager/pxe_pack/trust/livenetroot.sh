#!/bin/sh
# livenetroot - fetch the ISO, and have dracut mount it only if it has the sha256 on the kernel command line
#
# pxe-pack puts this in the place of dracut's script of the same name (modules.d/90livenet/livenetroot.sh, since
# release 108 modules.d/70livenet), and keeps that in $HOOK. Whatever fetches an ISO runs it: netroot.sh, for all of
# dracut's network modules, and Azure Linux's azl-liveos-artifacts-download.

command -v getarg > /dev/null || . /lib/dracut-lib.sh

PATH=/usr/sbin:/usr/bin:/sbin:/bin
HOOK=/usr/lib/pxe-fetch-iso
RETRIES=${RETRIES:-100} # attempts, and the seconds between them, as in dracut's script
SLEEP=${SLEEP:-5}
SILENCE=${SILENCE:-60} # seconds without a byte that end an attempt; dracut's script waits forever
FETCHES=3 # of a whole ISO with another sha256

wanted=$(getarg pxe-fetch.iso.sha256=)
[ -n "$wanted" ] || exec "$HOOK/livenetroot" "$@"

command -v fetch_url > /dev/null || . /lib/url-lib.sh

# It is run for each interface that comes up; the first one fetches.
(set -C && : > /tmp/livenet.downloaded) 2> /dev/null || exit 0

netroot="$2"
liveurl="${netroot#livenet:}"
folder=$(mkuniqdir /tmp pxe-fetch-iso)
file="$folder/liveos.${liveurl##*.}"

# Say $2 in the kernel's log, with the priority $1 of syslog(3): from there, the journal and the consoles get it as one
# line. Where systemd runs the initrd, dracut's info is in the journal alone, and what warn writes to a console can have
# other programs' lines in its middle.
say() {
    echo "<$1>dracut: pxe-pack: $2" >> /dev/kmsg
}
NOTICE=29 WARNING=28

# The URL without user and password, and cut off: the kernel's log takes lines of 976 bytes (kernel/printk/printk.c).
shown() {
    rest="${liveurl#*://}"
    authority="${rest%%/*}"
    printf '%.500s\n' "${liveurl%%://*}://${authority##*@}${rest#"$authority"}"
}

# Fetch the ISO to $file: by curl, what is missing of it. Fails if that is not the whole.
fetch() {
    if [ "$(get_url_handler "$liveurl")" != curl_fetch_url ]; then
        code=0
        fetch_url "$liveurl" "$file" || code=$?
        return "$code"
    fi
    case "$liveurl" in
        tftp:*) rm -f -- "$file" ;; # it has no ranges (RFC 1350), and curl would append the whole file
    esac
    # curl_args is url-lib's, with what proxy= and rd.noverifyssl say. curl's own retries would begin where this
    # attempt began.
    # shellcheck disable=SC2086,SC2154
    status=$(curl $curl_args --retry 0 --connect-timeout 30 --speed-limit 1 --speed-time "$SILENCE" \
        --continue-at - --write-out '%{http_code}' --output "$file" -- "$liveurl")
    code=$?
    case "$code:$status" in
        # no range from there: the server has none (31 ftp, 33, 36), or the file has no bytes after these (416)
        31:* | 33:* | 36:* | 22:416) rm -f -- "$file" ;;
    esac
    return "$code"
}

# The sha256 of $file.
digest() {
    set -- sha256sum
    [ -x "$HOOK/sha256sum" ] && set -- "$HOOK/sha256sum"
    [ -x "$HOOK/ld.so" ] && set -- "$HOOK/ld.so" --library-path "$HOOK" "$@"
    "$@" < "$file" | {
        read -r sum _
        echo "$sum"
    }
}

# Do not boot. dracut's emergency_shell does what rd.shell and rd.emergency say; die alone ignores the latter.
stop() {
    rm -f -- "$file"
    if [ -n "$(getarg rd.emergency=)" ]; then
        echo "<24>dracut: FATAL: $1" > /dev/kmsg # as die does, also on a quiet console
        emergency_shell "$1"
    fi
    die "$1"
    exit 1
}

info "fetching $(shown)"
attempt=0
fetched=0
while :; do
    attempt=$((attempt + 1))
    if fetch; then
        found=$(digest)
        [ "$found" != "$wanted" ] || break
        [ -n "$found" ] || stop "pxe-pack: cannot verify the ISO: sha256sum does not run in the initrd"
        fetched=$((fetched + 1))
        what="the ISO at $(shown) has the sha256 $found, not $wanted as the kernel command line says"
        [ "$fetched" -lt "$FETCHES" ] || stop "pxe-pack: $what; it was fetched $fetched times, and is not booted"
        say $WARNING "$what; fetching it again"
        rm -f -- "$file"
    else
        warn "failed to download live image: error $code"
        if [ "$attempt" -ge "$RETRIES" ]; then
            warn "failed to download live image after $attempt attempts."
            exit 1
        fi
    fi
    sleep "$SLEEP"
done
say $NOTICE "the ISO has the sha256 that the kernel command line says"

# the rest is as in dracut's script
root=$file
if [ "${file##*.}" = "iso" ]; then
    root=$(losetup -f)
    losetup "$root" "$file"
fi
if getargbool 0 rd.writable.fsimg && [ -e /lib/img-lib.sh ] && . /lib/img-lib.sh \
    && command -v check_live_ram > /dev/null; then # since release 060
    read -r sectors < "/sys/block/${root##*/}/size"
    check_live_ram $((sectors / 2048))
fi

exec /sbin/dmsquash-live-root "$root"
