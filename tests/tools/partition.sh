#!/usr/bin/env bash
# A network namespace that can be parted from the rest, for a program in it whose NATS is outside. Needs root and iproute2.
#
#   partition.sh available          whether this machine allows it; says why not
#   partition.sh up NAME NET        makes NAME; outside is 10.99.NET.1, inside is 10.99.NET.2
#   partition.sh also NAME NET      a second way into NAME that nothing is lost on, with addresses like the first
#   partition.sh exec NAME CMD..    runs a program inside
#   partition.sh drop NAME WAY      loses every packet that goes `out` of the namespace, `in` to it, or `both`
#   partition.sh mend NAME          loses none
#   partition.sh down NAME          removes it; programs inside are not ended
#
# NAME has at most ten characters: the kernel's names of interfaces are short.

set -euo pipefail

# A queue that loses what is put into it, and says that it was sent: the sender notices nothing, as in a real partition.
blackhole() { tc ${2:+-n "$2"} qdisc replace dev "$1" root blackhole; }
clear_way() { tc ${2:+-n "$2"} qdisc del dev "$1" root 2>/dev/null || true; }

must_be_free() {
  if ip -o -4 address show | grep -q " 10\.99\.$1\.1/"; then echo "error: 10.99.$1 is taken" >&2 && exit 1; fi
}

# A way between NAME and outside, over NET, with interfaces called OUT and IN.
way() {
  ip link add "$3" type veth peer name "$4" netns "$1"
  ip address add "10.99.$2.1/24" dev "$3"
  ip link set "$3" up
  ip -n "$1" address add "10.99.$2.2/24" dev "$4"
  ip -n "$1" link set "$4" up
}

up() {
  must_be_free "$2"
  ip netns add "$1"
  ip -n "$1" link set lo up
  way "$1" "$2" "$1-out" "$1-in"
}

also() {
  must_be_free "$2"
  way "$1" "$2" "$1-o2" "$1-i2"
}

drop() {
  case $2 in
    out) blackhole "$1-in" "$1" ;;
    in) blackhole "$1-out" ;;
    both) blackhole "$1-in" "$1" && blackhole "$1-out" ;;
    *) echo "error: the way is out, in or both" >&2 && exit 1 ;;
  esac
}

mend() {
  clear_way "$1-in" "$1"
  clear_way "$1-out"
}

# The namespace lives on while a program is inside, and with it the interfaces: those go first.
down() {
  ip link delete "$1-out" 2>/dev/null || true
  ip link delete "$1-o2" 2>/dev/null || true
  ip netns delete "$1"
}

available() {
  command -v ip >/dev/null && command -v tc >/dev/null || { echo "ip and tc are missing (Debian: iproute2)" >&2; exit 1; }
  trap 'down "rcp$$" 2>/dev/null || true' EXIT
  up "rcp$$" 250
  drop "rcp$$" both
}

case ${1:-} in
  available) available ;;
  up | also | drop | mend | down) "$@" ;;
  exec) shift && exec ip netns exec "$@" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2 && exit 1 ;;
esac
