#!/usr/bin/env bash
# A network namespace that can be parted from the rest, for a program in it whose NATS is outside. Needs root and iproute2.
#
#   partition.sh available          whether this machine allows it; says why not
#   partition.sh up NAME NET        makes NAME; outside is 10.99.NET.1, inside is 10.99.NET.2
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

up() {
  ip netns add "$1"
  ip link add "$1-out" type veth peer name "$1-in" netns "$1"
  ip address add "10.99.$2.1/24" dev "$1-out"
  ip link set "$1-out" up
  ip -n "$1" address add "10.99.$2.2/24" dev "$1-in"
  ip -n "$1" link set "$1-in" up
  ip -n "$1" link set lo up
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
  up | drop | mend | down) "$@" ;;
  exec) shift && exec ip netns exec "$@" ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2 && exit 1 ;;
esac
